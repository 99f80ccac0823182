# Step-interleaving model of the allocator core: claim words with carve and extend left (SC memory, every shared access
# = 1 step). The workers' steps are those of src/alloc/sector.rs, in its order.
#
# One word per granule: (state, owner, len, gen). Heads are FREE, CLAIMED(lane) and ALLOCATED(lane); INT and END are not
# heads. END(len) is the advisory tag on the last granule of a block. Heads never nest, and they may be believed: a head
# of length l read at h proves that [h, h+l) was covered at that moment. A granule that no head covers is named by the
# RANGE intent of the lane that is responsible for it. One intent per lane: RANGE(r, n) or none.
#   carve     intent=RANGE(r,n); CAS W[b] FREE(L,g) -> FREE(L-n,g+1); END of the tail; W[r]=ALLOCATED(me); CAS END(L-n) at
#             r-1 over INT or END; hints of the new class; intent=none. Exact fit: one CAS
#   absorb    (right) intent=RANGE(r,lr); CAS W[r] FREE -> INT; END of the whole; W[b]=CLAIMED(me,lb+lr); W[r-1]=INT;
#             intent=none
#   extend    (left) intent=RANGE(b,lb); END(lp+lb) at my end; W[b]=INT; CAS W[p] FREE(lp,g) -> FREE(lp+lb,g+1); hints if
#             the class changed; intent=none. If the CAS fails: END(lb), W[b]=CLAIMED(me,lb), intent=none, look again
#   release   absorb as long as the right one is FREE; extend, then claim a FREE block behind the whole and release it too;
#             or publish: END(l); W[b]=FREE(l,gen+1); hints; if a neighbour is FREE, claim my own again (three times)
#   split     (by the owner) intent=RANGE(rest); END of the piece; W[b]=ALLOCATED(me,n); W[b+n]=ALLOCATED(me,rest); and so on
#   alloc     class bitmap -> chunk bitmap -> chunk scan -> carve, the classes that surely fit first; on a miss all heads are
#             looked at: hints set again, FREE|FREE pairs merged; only then is it out of memory
#   reaper    of a participant d, which it holds (all lanes of d: DEAD -> REAPING(me); to be had again if the reaper dies):
#             1 for each lane, the granules of its RANGE that no head was seen to cover: look at the heads, at the intents
#               of all lanes that I do not hold, at the heads again; the same words both times and no intent names the
#               granule: it is an orphan of d: END, then CAS the granule's word to CLAIMED(me). Named by a dead lane: take its
#               participant too (and keep it to the end of the pass) and look again. Named by a lane I cannot take: left for
#               later (d keeps its intent and is DEAD again afterwards)
#             2 clear the intent, release the orphans  3 scan: CLAIMED/ALLOCATED of d by CAS -> CLAIMED(me), release; hints of
#               every FREE  4 d is REAPED
# Adversary: scheduling in bursts; SIGKILL of workers and reapers at any step (more often while an intent is set); now and
# then two lanes are of one participant and die together; in a third of the runs one lane (worker or reaper) is frozen at some
# step until everybody else is at rest, then goes on or is killed; in a quarter of the runs a reaper is held before each of its
# looks until that look misleads it the most.
# Checked at every step: heads never nest, generations never fall. At every allocation: no overlap; at every failed one: no
# block was FREE and long enough during the whole call. With a lane frozen, at rest: what no head covers is named by its
# intent (or by a lane it was reaping), nothing else is leaked, and the largest FREE block can be had. At the end: exact
# tiling, no leak, hints complete. Counted: FREE|FREE pairs left at rest, wrong END tags on FREE blocks.
#
# usage: carve.py FIRST_SEED LAST_SEED [variant]     variant: words joined by commas (none: the base)
#   noval       extend does not check that p + lp = b
#   plainend    END of the remainder by a plain store
#   lateintent  carve sets its intent after the CAS
#   earlyclear  the intent is cleared before the head is written
#   noputback   extend does not put W[b] back when its CAS fails
#   norepair    the reaper does not repair the intent
#   nolive      the reaper does not look at live lanes' intents
#   onelook     the reaper looks at the heads once
#   nocompare   it looks twice, but does not ask for the same words
#   notake      two dead lanes with overlapping intents: neither is taken along
#   drop        what a lane names that cannot be taken is not left for later, but dropped with the intent
#   norehint    the reaper does not set hints again
#   noreclear   no second look after clearing a hint
#   noscan      no full scan on a miss
#   adopt       the reaper of an earlier version of sector.rs and recovery.rs, step by step
#   adopt,lowest  the same, but it stops at the lowest of the ranges that others name, not at the first that it found
#   these did no harm: noend (the END of a remainder is not written), noheal (the full scan merges no pairs), nosecond (no look
#   at the neighbours after publishing): blocks are merged later, or by who needs them
import random, sys
INT,FREE,CLM,ALO,END,SEN=0,1,2,3,4,5
NAMES='INT FREE CLM ALO END SEN'.split()
HEAD=(FREE,CLM,ALO)
CH=4
def on(m,w): return w in m.v
class M:
    def __init__(s,N,lanes,v):
        s.N=N; s.v=v
        s.W=[(INT,0,0,0)]*N+[(SEN,0,1,0)]
        s.W[0]=(FREE,0,N,1)
        if N>1: s.W[N-1]=(END,0,N,0)
        s.nc=(N+CH-1)//CH
        s.C={}; s.F=0
        s.intent=[None]*lanes
        s.slot=['LIVE']*lanes; s.dead=set(); s.defer=[0]*lanes
        s.shadow=[None]*N; s.watch={}; s.wish={}
        c=cls(N); s.C[c]=1; s.F=1<<c
        s.steps=0; s.stat=dict.fromkeys('alloc oom free carve exact absorb extend backed split crash rcrash frozen reap orphan deferred taken pairs badend'.split(),0)
    def put(s,g,w):                      # every write of a word goes through here: invariants of every step
        o=s.W[g]
        assert w[3]>=o[3],('GEN',g,o,w)
        s.W[g]=w
        if w[0] in HEAD and (o[0] not in HEAD or w[2]>o[2]):
            assert w[2]>=1 and g+w[2]<=s.N,('LEN',g,w)
            for i in range(g+1,g+w[2]): assert s.W[i][0] not in HEAD,('NESTED',g,w,i,s.W)
            for i in range(g-1,-1,-1):
                if s.W[i][0] in HEAD:
                    assert i+s.W[i][2]<=g,('NESTED',i,s.W[i],g,w); break
        for n,c in s.watch.values():
            if g in c and not (w[0]==FREE and w[2]>=n): c.discard(g)
def cls(l): return l.bit_length()-1
# every generator yields once before each shared access
def ld(m,g): yield; return m.W[g]
def stw(m,g,w): yield; m.put(g,w)
def cas(m,g,a,b):
    yield
    if m.W[g]==a: m.put(g,b); return True
    return False
def setint(m,me,v): yield; m.intent[me]=v
def set_hints(m,g,l):
    c=cls(l); ch=g//CH
    yield
    if not m.C.get(c,0)>>ch&1:
        yield
        m.C[c]=m.C.get(c,0)|1<<ch
    yield
    if not m.F>>c&1:
        yield
        m.F|=1<<c
def endtag(m,g,l):                       # of a block that is mine
    if l>=2:
        o=yield from ld(m,g+l-1)
        yield from stw(m,g+l-1,(END,0,l,o[3]))
def endcas(m,g,l):                       # of a block that is not mine: only over INT or END
    if l<2 or on(m,'noend'): return
    e=yield from ld(m,g+l-1)
    if on(m,'plainend'):
        yield from stw(m,g+l-1,(END,0,l,e[3])); return
    if e[0] in (INT,END) and e!=(END,0,l,e[3]): yield from cas(m,g+l-1,e,(END,0,l,e[3]))
def carve(m,me,b,w,n):
    L=w[2]; r=b+L-n
    if n==L:
        if (yield from cas(m,b,w,(ALO,me,n,w[3]))): m.stat['exact']+=1; return b
        return None
    if not on(m,'lateintent'): yield from setint(m,me,('RANGE',r,n))
    if not (yield from cas(m,b,w,(FREE,0,L-n,w[3]+1))):
        yield from setint(m,me,None)
        return None
    m.stat['carve']+=1
    if on(m,'lateintent'): yield from setint(m,me,('RANGE',r,n))
    if on(m,'earlyclear'): yield from setint(m,me,None)
    o=yield from ld(m,r)
    yield from endtag(m,r,n)
    yield from stw(m,r,(ALO,me,n,o[3]+1))
    yield from endcas(m,b,L-n)
    if cls(L-n)!=cls(L): yield from set_hints(m,b,L-n)
    yield from setint(m,me,None)
    return r
def left_of(m,b):
    if b==0: return None
    e=yield from ld(m,b-1)
    if e[0]==END: p=b-e[2]
    elif e[0]==FREE and e[2]==1: return b-1,e
    else: return None
    if p<0: return None
    w=yield from ld(m,p)
    if w[0]==FREE and (p+w[2]==b or on(m,'noval')): return p,w
    return None
def can_follow(m,r):
    w=yield from ld(m,r)
    return w[0]==FREE
def take_back(m,me,b,tries):             # claim what is free at b, to be merged
    if tries[0]==0: return False
    tries[0]-=1
    w=yield from ld(m,b)
    return w[0]==FREE and (yield from cas(m,b,w,(CLM,me,w[2],w[3])))
def release(m,me,b):                     # W[b] is ALLOCATED(me) or CLAIMED(me)
    tries=[3]
    while True:
        w=yield from ld(m,b); l=w[2]; gen=w[3]
        assert w[0] in (CLM,ALO) and w[1]==me,('NOT MINE',b,w,me)
        while True:
            r=b+l
            wr=yield from ld(m,r)
            if wr[0]!=FREE: break
            lr=wr[2]
            yield from setint(m,me,('RANGE',r,lr))
            if (yield from cas(m,r,wr,(INT,0,0,wr[3]))):
                m.stat['absorb']+=1
                if on(m,'earlyclear'): yield from setint(m,me,None)
                yield from endtag(m,b,l+lr)
                yield from stw(m,b,(CLM,me,l+lr,gen))
                if l>=2:
                    o=yield from ld(m,r-1)
                    yield from stw(m,r-1,(INT,0,0,o[3]))
                l+=lr
            yield from setint(m,me,None)
        lf=yield from left_of(m,b)
        if lf:
            p,wp=lf; lp=wp[2]
            yield from setint(m,me,('RANGE',b,l))
            if l>=2:
                o=yield from ld(m,b+l-1)
                yield from stw(m,b+l-1,(END,0,lp+l,o[3]))
                yield from stw(m,b,(INT,0,0,gen))
            else:
                yield from stw(m,b,(END,0,lp+l,gen))
            if on(m,'earlyclear'): yield from setint(m,me,None)
            if (yield from cas(m,p,wp,(FREE,0,lp+l,wp[3]+1))):
                m.stat['extend']+=1
                if cls(lp+l)!=cls(lp): yield from set_hints(m,p,lp+l)
                yield from setint(m,me,None)
                r=b+l
                if (yield from can_follow(m,r)) and (yield from take_back(m,me,r,tries)): b=r; continue
                return
            m.stat['backed']+=1
            if on(m,'noputback'):
                yield from setint(m,me,None)
                return
            yield from endtag(m,b,l)
            yield from stw(m,b,(CLM,me,l,gen))
            yield from setint(m,me,None)
            continue
        yield from endtag(m,b,l)
        yield from stw(m,b,(FREE,0,l,gen+1))
        yield from set_hints(m,b,l)
        if on(m,'nosecond'): return
        if ((yield from can_follow(m,b+l)) or (yield from left_of(m,b))) and (yield from take_back(m,me,b,tries)): continue
        return
def visit(m,me,c,ch,n):                  # a chunk: the granule taken | 'found' | 'empty'
    out='empty'
    for g in range(ch*CH,min((ch+1)*CH,m.N)):
        w=yield from ld(m,g)
        while w[0]==FREE and cls(w[2])==c:
            out='found'
            if w[2]<n: break
            t=yield from carve(m,me,g,w,n)
            if t is not None: return t
            w=yield from ld(m,g)
    return out
def search(m,me,n,frm,to):
    yield
    F=m.F
    for c in range(frm,to):
        if not F>>c&1: continue
        yield
        leaf=m.C.get(c,0)
        if leaf==0:
            yield
            m.F&=~(1<<c)
            if on(m,'noreclear'): continue
            yield
            if m.C.get(c,0):
                yield
                m.F|=1<<c
            continue
        for ch in range(m.nc):
            if not leaf>>ch&1: continue
            t=yield from visit(m,me,c,ch,n)
            if t=='found': continue
            if t!='empty': return t
            yield
            m.C[c]&=~(1<<ch)
            if on(m,'noreclear'): continue
            t=yield from visit(m,me,c,ch,n)
            if t!='empty':
                yield
                m.C[c]|=1<<ch
            if t not in('found','empty'): return t
    return None
def sweep(m,me,n):                       # a miss: look at every head
    g=0
    while g<m.N:
        w=yield from ld(m,g)
        while w[0]==FREE:
            yield from set_hints(m,g,w[2])
            if (yield from can_follow(m,g+w[2])) and not on(m,'noheal'):
                if (yield from cas(m,g,w,(CLM,me,w[2],w[3]))): yield from release(m,me,g)
            elif w[2]>=n:
                t=yield from carve(m,me,g,w,n)
                if t is not None: return t
            else: break
            w=yield from ld(m,g)
        g+=w[2] if w[0] in HEAD else 1
    return None
def find(m,me,n):
    cov=cls(n)+(n&n-1>0)
    t=yield from search(m,me,n,cov,cls(m.N)+1)
    if t is None and cov>cls(n): t=yield from search(m,me,n,cls(n),cov)
    if t is None and not on(m,'noscan'): t=yield from sweep(m,me,n)
    return t
def alloc(m,me,n):
    m.watch[me]=(n,{g for g in range(m.N) if m.W[g][0]==FREE and m.W[g][2]>=n})
    g=yield from find(m,me,n)
    c=m.watch.pop(me)[1]
    if g is None: assert not c,('FALSE OOM',n,c,m.W)
    return g
def split(m,me,b,n,k):
    w=yield from ld(m,b); head=w[3]; m.stat['split']+=1
    while k>1:
        rest=n*(k-1)
        yield from setint(m,me,None if on(m,'earlyclear') else ('RANGE',b+n,rest))
        yield from endtag(m,b,n)
        yield from stw(m,b,(ALO,me,n,head))
        b+=n; k-=1
        w=yield from ld(m,b); head=w[3]+1
        yield from stw(m,b,(ALO,me,rest,head))
    yield from endtag(m,b,n)
    yield from stw(m,b,(ALO,me,n,head))
    yield from setint(m,me,None)
# ---- reaper
def heads(m,r,n):                        # from the nearest head at or before r, to r+n-1
    out={}; g=r
    while True:
        w=yield from ld(m,g); out[g]=w
        if w[0] in HEAD or g==0: break
        g-=1
    for g in range(r+1,r+n): out[g]=yield from ld(m,g)
    cov=set()
    for g,w in out.items():
        if w[0] in HEAD: cov.update(range(g,g+w[2]))
    return cov,{g:(w if w[0] in HEAD else w[3]) for g,w in out.items()}
def takeable(m,d):
    st=m.slot[d]
    return st=='DEAD' or (st!='REAPED' and st!='LIVE' and st[1] in m.dead)
def sit(m,p,st):                         # the slot of participant p
    for o in m.lanes[p]: m.slot[o]=st
def resolve(m,me,d,held):                # True: nothing of d's intent is left to do
    yield
    it=m.intent[d]
    if not it: return True
    done=True
    if not on(m,'norepair'):
        _,r,n=it; cand=set(range(r,r+n)); mine=[]; tries=0
        while True:
            m.wish[me]=['open',cand,300]
            cov,a=yield from heads(m,r,n)
            cand-=cov
            if not cand: break
            m.wish[me]=['quiet',cand,300]
            named=set(); again=False
            for o in range(len(m.intent)):
                if o==d or (on(m,'nolive') and o not in m.dead): continue
                yield
                i=m.intent[o]
                if not i: continue
                x=cand&set(range(i[1],i[1]+i[2]))
                if not x: continue
                if o in held: continue
                yield
                if o not in held and takeable(m,o) and not on(m,'notake'):
                    sit(m,m.part[o],('REAPING',me)); held+=m.lanes[m.part[o]]; m.stat['taken']+=1; again=True
                named|=x
            if again: continue
            if not on(m,'onelook'):
                m.wish[me]=['open',cand,300]
                cov,b=yield from heads(m,r,n)
                cand-=cov
                if a!=b and not on(m,'nocompare'): continue
            todo=sorted(cand-named); fail=False
            while todo:
                x=y=todo[0]
                while y in todo: y+=1
                yield from endtag(m,x,y-x)
                o=yield from ld(m,x)
                if o[0] not in (INT,END) or not (yield from cas(m,x,o,(CLM,me,y-x,o[3]+1))): fail=True; break
                m.stat['orphan']+=1; mine.append(x); cand-=set(range(x,y)); todo=[z for z in todo if z>=y]
            if fail: continue
            if not cand or on(m,'drop'): break
            tries+=1
            if tries==3: done=False; m.stat['deferred']+=1; m.defer[d]+=1; break
        if done:
            yield
            m.intent[d]=None
        for x in mine: yield from release(m,me,x)
        return done
    yield
    m.intent[d]=None
    return True
def scan(m,me,dead):
    for g in range(m.N):
        w=yield from ld(m,g)
        if w[0] in (CLM,ALO) and w[1] in dead:
            if (yield from cas(m,g,w,(CLM,me,w[2],w[3]))): yield from release(m,me,g)
        elif w[0]==FREE and not on(m,'norehint'): yield from set_hints(m,g,w[2])
# ---- the same, as sector.rs and recovery.rs had it (variant 'adopt')
def covered_until(m,g):
    for h in range(g,-1,-1):
        w=yield from ld(m,h)
        if w[0] in HEAD: return h+w[2] if h+w[2]>g else None
    return None
def others(m,me,d):
    out=[]
    for o in range(len(m.intent)):
        yield
        i=m.intent[o]
        if not i or o==d: continue
        yield
        dead=takeable(m,o) or m.slot[o]==('REAPING',me)     # the lock byte of a slot that somebody buries is taken: "alive"
        if not (m.part[o]>m.part[d] and dead): out.append((i[1],i[2]))
    return out
def adopt(m,me,d,r,n):
    at=r; end=r+n
    while at<end:
        m.wish[me]=['open',{at},300]
        u=yield from covered_until(m,at)
        if u is not None: at=u; continue
        stop=end
        for g in range(at+1,end):
            if (yield from ld(m,g))[0] in HEAD: stop=g; break
        tk=None
        m.wish[me]=['quiet',set(range(at,stop)),300]
        for s,l in (yield from others(m,me,d)):
            if s<stop and at<s+l:
                if tk is None or (on(m,'lowest') and s<tk[0]): tk=(s,l)
        if tk:
            s,l=tk
            at=(yield from adopt_run(m,me,at,s)) if s>at else s+l
            continue
        at=yield from adopt_run(m,me,at,stop)
def adopt_run(m,me,at,stop):
    m.wish[me]=['open',set(range(at,stop)),300]
    for g in range(at,stop):
        if (yield from covered_until(m,g)) is not None: return at+1
    yield from setint(m,me,('RANGE',at,stop-at))
    yield from endtag(m,at,stop-at)
    o=yield from ld(m,at)
    yield from stw(m,at,(CLM,me,stop-at,o[3]+1))
    m.stat['orphan']+=1
    yield from setint(m,me,None)
    yield from release(m,me,at)
    return stop
def reaper(m,me):
    while True:
        for d in range(len(m.slot)):
            if d!=me and takeable(m,d):
                sit(m,m.part[d],('REAPING',me)); held=list(m.lanes[m.part[d]]); ok={}
                if on(m,'adopt'):
                    for o in held:
                        yield
                        i=m.intent[o]
                        if i: yield from adopt(m,me,o,i[1],i[2])
                        ok[o]=True
                    yield from scan(m,me,held)
                    for o in held: yield from setint(m,o,None)
                else:
                    for o in held: ok[o]=yield from resolve(m,me,o,held)   # held grows while we go
                    yield from scan(m,me,held)
                for p in dict.fromkeys(m.part[o] for o in held):
                    yield
                    k=all(ok[o] for o in m.lanes[p])
                    sit(m,p,'REAPED' if k else 'DEAD'); m.stat['reap']+=k
        yield
# ---- the runs
def cover(m):
    c=[None]*m.N
    for g in range(m.N):
        w=m.W[g]
        if w[0] in HEAD:
            for i in range(g,g+w[2]):
                assert c[i] is None,('OVERLAPPING HEADS',g,m.W); c[i]=g
    return c
def check(m,held,frozen=None):
    c=cover(m); prev=False; pin=set(); lanes=set()
    if frozen is not None:
        lanes={frozen}|{d for d,s in enumerate(m.slot) if s==('REAPING',frozen)}
        for o in lanes:
            i=m.intent[o]
            if i: pin|=set(range(i[1],i[1]+i[2]))
    for g in range(m.N):
        if c[g] is None: assert g in pin,('ORPHAN',g,m.W,m.intent,m.slot)
        w=m.W[g]
        if w[0] in HEAD:
            if w[0]==FREE:
                if frozen is None:
                    h=m.C.get(cls(w[2]),0)>>(g//CH)&1 and m.F>>cls(w[2])&1
                    assert h,('HINT',g,w)
                    m.stat['pairs']+=prev
                    if w[2]>=2: m.stat['badend']+=m.W[g+w[2]-1][:3]!=(END,0,w[2])
                prev=True
            else:
                prev=False
                assert (g,w[2]) in held or w[1] in lanes,('LEAK',g,w,held,m.slot)
    for b,l in held: assert m.W[b][0]==ALO and m.W[b][2]==l,('LOST',b,l,m.W)
def worker(m,me,rng,held,ops):
    def got(g,n):
        m.stat['alloc']+=1
        for x in range(g,g+n):
            assert m.shadow[x] is None,('OVERLAP',g,n,x,m.shadow)
            m.shadow[x]=me
        held.append((g,n))
    for _ in range(ops):
        if held and rng.random()<0.5:
            i=rng.randrange(len(held)); g,l=held.pop(i)
            for x in range(g,g+l): m.shadow[x]=None
            m.stat['free']+=1
            yield from release(m,me,g)
        elif rng.random()<.15:
            n=rng.choice([1,2]); k=rng.choice([2,3])
            g=yield from alloc(m,me,n*k)
            if g is None: m.stat['oom']+=1; continue
            yield from split(m,me,g,n,k)
            for i in range(k): got(g+i*n,n)
        else:
            n=rng.choice([1,1,2,2,3,4,5])
            g=yield from alloc(m,me,n)
            if g is None: m.stat['oom']+=1; continue
            got(g,n)
def run(seed,v):
    rng=random.Random(seed)
    T=rng.choice([2,3,3,4]); R=3; N=rng.choice([6,9,13,16,24])
    m=M(N,T+R,v)
    ps=rng.sample(range(T+R),T+R)        # participants: any order; now and then one has two lanes
    m.part=ps[:]
    if T>2 and rng.random()<.5: m.part[1]=m.part[0]
    m.lanes={p:[i for i in range(T+R) if m.part[i]==p] for p in m.part}
    held=[[] for _ in range(T)]
    hunt=60*(rng.random()<.25)          # as often may a reaper be held until its look misleads it the most
    gens={i:worker(m,i,rng,held[i],60 if hunt else rng.choice([6,12,20])) for i in range(T)}
    for i in range(T,T+R): gens[i]=reaper(m,i)
    alive=list(range(T)); reapers=list(range(T,T+R))
    pc=rng.choice([0,0.001,0.004,0.02]); boost=rng.choice([1,5,10])
    pf=rng.choice([0,0,0.002,0.01]); frozen=None
    def kill(p):
        nonlocal frozen
        for i in m.lanes[m.part[p]]:
            if i in m.dead: continue
            if i in gens: gens.pop(i).close()
            m.slot[i]='DEAD'; m.dead.add(i); m.watch.pop(i,None)
            if i==frozen: frozen=None
            if i<T:
                m.stat['crash']+=1
                if i in alive: alive.remove(i)
                for g,l in held[i]:
                    for x in range(g,g+l): m.shadow[x]=None
                held[i]=[]
            else: m.stat['rcrash']+=1; reapers.remove(i)
    def spare(i): return set(alive)-set(m.lanes[m.part[i]])    # a worker is left
    def step(i):
        nonlocal frozen
        busy=m.intent[i] is not None or any(s==('REAPING',i) for s in m.slot)
        k=boost if busy else 1
        if pc and rng.random()<pc*k:
            if i<T and spare(i): kill(i); return False
            if i>=T and busy and len([x for x in reapers if x!=frozen])>1: kill(i); return False
        if pf and frozen is None and rng.random()<pf*k:
            if (i<T and len(alive)>1) or (i>=T and busy and len(reapers)>1):
                frozen=i; m.stat['frozen']+=1
                if i<T: alive.remove(i)
                return False
        try: next(gens[i])
        except StopIteration: alive.remove(i); return False
        m.steps+=1
        if m.steps>150000: raise Exception('livelock?')
        return True
    def bad(): return [d for d,s in enumerate(m.slot) if s not in('LIVE','REAPED')]
    def go():
        nonlocal hunt
        cur=None; burst=0
        while alive:
            if burst<=0:
                cur=rng.choice(alive+[rng.choice(reapers)]); burst=rng.choice([1,1,1,2,4,9,30,80])
            burst-=1
            if cur in m.wish and hunt>0:   # hold a reaper until its look misleads it the most
                kind,c,left=m.wish[cur]
                x=set()
                if kind=='open':
                    x=c-{i for g,w in enumerate(m.W) if w[0] in HEAD for i in range(g,g+w[2])}; ok=bool(x)
                else: ok=not any(m.intent[o] and c&set(range(m.intent[o][1],sum(m.intent[o][1:]))) for o in range(T) if o not in m.dead)
                if not ok and left and len(alive)>1: m.wish[cur][2]-=1; burst=0; continue
                del m.wish[cur]; burst=60; hunt-=1
            if cur==frozen or cur not in gens or (cur<T and cur not in alive): burst=0; continue
            if not step(cur): burst=0
    def settle():
        m.defer=[0]*len(m.defer)
        while True:
            b=[d for d in bad() if not (m.slot[d]!='DEAD' and m.slot[d][1]==frozen)]
            if all(m.slot[d]=='DEAD' and max(m.defer[o] for o in m.lanes[m.part[d]])>2 for d in b): break
            i=rng.choice([x for x in reapers if x!=frozen])
            for _ in range(rng.choice([1,1,3,10,50])):
                if not step(i): break
    def probe():
        big=max([w[2] for w in m.W if w[0]==FREE],default=0)
        me=T+R-1
        while me not in reapers or me==frozen: me-=1
        if m.slot[me]!='LIVE' or not big or m.intent[me] is not None: return
        got=None
        q=alloc(m,me,big)
        try:
            while True: next(q); m.steps+=1; assert m.steps<150000,'livelock?'
        except StopIteration as e: got=e.value
        assert got is not None,('CANNOT HAVE',big,m.W)
        for _ in release(m,me,got): pass
    go(); settle()
    if frozen is not None:
        check(m,{x for i,h in enumerate(held) if i!=frozen for x in h},frozen)
        probe()
        f=frozen; frozen=None; pf=0
        if f<T: alive.append(f)
        if rng.random()<.4 and (f<T or len(reapers)>1): kill(f)
        go(); settle()
    b=bad()
    assert not b,('NOT REAPED',b,m.slot,m.intent)
    # a reaper may be in the middle of its last step or two
    check(m,{x for h in held for x in h})
    probe()
    return m
if __name__=='__main__':
    a,b=int(sys.argv[1]),int(sys.argv[2]); var=sys.argv[3] if len(sys.argv)>3 else ''
    v=set(var.split(',')) if var else set()
    tot={}; fails={}; pr=0
    for s in range(a,b):
        try:
            m=run(s,v); pr+=m.stat['pairs']>0
            for k,x in m.stat.items(): tot[k]=tot.get(k,0)+x
        except AssertionError as e:
            x=(e.args or ['assert'])[0]; fails.setdefault(str(x[0] if isinstance(x,tuple) else x),[]).append(s)
        except Exception as e: fails.setdefault(type(e).__name__+' '+str(e)[:40],[]).append(s)
    print('variant',var or 'base','runs',b-a,'failed',sum(map(len,fails.values())),'totals',tot,'runs with a FREE|FREE pair at the end',pr)
    for k,x in sorted(fails.items()): print('  FAIL',k,len(x),x[:3])
