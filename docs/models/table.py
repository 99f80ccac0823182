# Runs carve.py, ring.py, ends.py and permits.py: the base of each, which must pass, and each ablation, which must fail. An ablation is given seeds
# in steps until a run of it fails, and no more than LIMIT. Exit code 1 if a base fails or an ablation passes.
#
# usage: table.py [carve|ring|ends|permits|all] [SEEDS_OF_BASE] [LIMIT]
import sys
import carve, ends, permits, ring
ABLATIONS={
    carve:'noval plainend earlyclear lateintent noputback norepair nolive onelook nocompare notake drop norehint noreclear noscan adopt'.split(),
    ring:'vyukov exact trust nolap nocap lapoff nobump countlate barecount lateword norecv earlyclear nolive notake ifirst,nomark,nowrap cfirst,nomark,nowrap latesend code nomark nomark,nowrap,nosendgen'.split(),
    ends:'nopin noversion beyond novalidate nowait noseal lazy flagsfirst nolook pinsfirst nosettle lateplace'.split(),
    permits:'nobid notag late countsfirst early nohelp overtake nobump noreap twice moving nolook'.split()}
def go(model,variant,seeds,until_failure):
    n=failed=0; kinds={}
    for seed in seeds:
        n+=1
        try: model.run(seed,set(variant.split(',')) if variant else set())
        except AssertionError as e:
            x=(e.args or ['assert'])[0]; k=x[0] if isinstance(x,tuple) else x
        except Exception as e: k=str(e)
        else: continue
        failed+=1; kinds[k]=kinds.get(k,0)+1
        if until_failure and k!='livelock?': break
    return n,failed,kinds
def main():
    which=sys.argv[1] if len(sys.argv)>1 else 'all'
    base=int(sys.argv[2]) if len(sys.argv)>2 else 5000
    limit=int(sys.argv[3]) if len(sys.argv)>3 else 40000
    bad=False
    print('%-6s %-24s %7s %7s  %s'%('model','variant','seeds','failed','how'))
    for model,words in ABLATIONS.items():
        name=model.__name__
        if which not in('all',name): continue
        for v in ['']+words:
            n,failed,kinds=go(model,v,range(base if not v else limit),v!='')
            real=failed-kinds.get('livelock?',0)
            wrong=failed>0 if not v else real==0
            bad|=wrong
            print('%-6s %-24s %7d %7d  %s%s'%(name,v or 'base',n,failed,', '.join(map(str,kinds)),'   <-- WRONG' if wrong else ''),flush=True)
    sys.exit(bad)
if __name__=='__main__': main()
