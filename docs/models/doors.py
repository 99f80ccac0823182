# Step model of coming into a segment and going out of it: src/region/mapped.rs. One name, files that have it in turn, two places in
# each. Processes open or make the segment, work, leave, and come again; each may be killed at any step, or be refused something by
# its kernel at some; whoever is in buries the dead. A process has one description per file, whose locks go with it.
#
# The steps, each of which is one system call or one access to a slot:
#   open      1 all locks at once: nobody lives there; the name is taken away if it is still this file's
#             2 slots that do not say LIVE, then those that do: look, lock, look at the name, look at the slot again
#             3 no place: gate, name, all slots; FULL only if each says LIVE and not BURIED_NOW, three times in a row (the code: five)
#             4 a dead one's place says BURIED_NOW; the lifeline is held, the watcher told; the slot says LIVE
#             5 the predecessor is buried
#   make      temporary file, gate, own byte, own slot, lifeline; gate given up; renamed unless the name is taken or the file has gone
#   leave     the slot says nothing (if it is settled: joined, and no predecessor is left), own byte given up, all locks at once as in 1
#   bury      look LIVE, not locked; lock; look again; BURIED_NOW; give back; the slot says nothing; unlock
#   tidy      a temporary file: all locks, then its name goes
# Invariants:
#   NAME      a name is taken away only from a file in which nobody lives, and nobody is about to
#   SLOT      the slot of a participant that has appeared says LIVE as long as it lives
#   LEAK      what somebody held who died is given back by whoever has its slot next, or buries it: no free slot has it
#   FULL      who is refused for want of a place had none: at some moment of its last looks each place was a living one's, or a reaper
#             had its lock that stood still for all of them before it said so
#   UNHEARD   whoever dies after it appeared has a watcher
#   LOST      a file that has its name when its creator gets the gate is not tidied away
#   NAMELESS  who appears does so in a file that has the name
# Ablations: zero (who has no place leaves that of participant 0), clears (who fails says that the dead one's place is free),
#   lock (FULL is what is locked), gate (tidying takes the gate only), early (the slot says LIVE before the watcher is told),
#   noname (a newcomer does not look at the name), halflast (a leaver takes the name without the gate and the other bytes),
#   unlocked (a creator does not look whether it has got the gate of its file),
#   noflag (a reaper does not say BURIED_NOW).
#
# usage: doors.py [FROM] [TO] [ABLATION]... ; doors.py table
import random, sys
PLACES=2; GATE='gate'
class Slot:
    def __init__(s): s.live=False; s.buried_now=False; s.held=None; s.told=False
class File:
    def __init__(s): s.slots=[Slot() for _ in range(PLACES)]; s.locks={}; s.temporary=True
    def try_lock(s,p,bytes_):
        if any(s.locks.get(b,p) is not p for b in bytes_): return False
        for b in bytes_: s.locks[b]=p
        return True
    def unlock(s,p,bytes_):
        for b in bytes_:
            if s.locks.get(b) is p: del s.locks[b]
    def others(s,p,b): return s.locks.get(b,p) is not p
ALL=[GATE]+list(range(PLACES))
class Refused(Exception): pass
class Process:
    def __init__(s,w,n): s.w=w; s.n=n; s.file=None; s.me=None; s.joined=False; s.entering=None; s.reaping=None
class World:
    def __init__(s,seed,off):
        s.rng=random.Random(seed); s.off=off; s.name=None; s.temporaries=[]; s.processes=[]; s.refusals=0; s.looking={}
    def may_refuse(s):
        # The kernel refuses a lock, memory or a thread now and then.
        if s.rng.random()<0.05: raise Refused()
    def lives(s,f,slot):
        # Somebody alive has the place, or is about to, or is between the lock of a dead one's and saying so.
        return any(p.file is f and p.me==slot or (f,slot) in(p.entering,p.reaping) for p in s.processes)
    def remove(s,f,by):
        assert not any(p.file is f and p is not by for p in s.processes) and not any(p.entering and p.entering[0] is f and p is not by for p in s.processes),('NAME',by.n)
        s.name=None
def watch_full(w,f,seen):
    # At every step of anybody.
    for i in range(PLACES): seen[i]|=w.lives(f,i)
def enter(w,p):
    refusals=0; seen=[False]*PLACES
    while True:
        f=w.name; yield
        if f is None: return None
        p.opened.append(f)
        w.may_refuse()
        if f.try_lock(p,ALL):
            yield
            if w.name is f: w.remove(f,p)
            yield
            f.unlock(p,ALL); return None
        yield
        if refusals==0: seen=[False]*PLACES
        w.looking[p]=(f,seen); watch_full(w,f,seen)
        place=None; in_the_way=False
        for dead in(False,True):
            for i in range(PLACES):
                live=f.slots[i].live; yield
                if live!=dead: continue
                w.may_refuse()
                if not f.try_lock(p,[i]): yield; continue
                p.entering=(f,i); yield
                if 'noname' not in w.off and w.name is not f:
                    f.unlock(p,[i]); p.entering=None; in_the_way=True; break
                yield
                if f.slots[i].live!=dead: f.unlock(p,[i]); p.entering=None; yield; continue
                place=i; break
            if place is not None or in_the_way: break
        if in_the_way: refusals=0; yield; continue
        if place is not None: return f,place,dead
        if 'lock' in w.off: full=all(f.others(p,i) for i in range(PLACES)) and not f.others(p,GATE)
        else:
            full=not f.others(p,GATE); yield
            full=full and w.name is f; yield
            for s in f.slots: full=full and s.live and not s.buried_now; yield
        if not full: refusals=0; yield; continue
        refusals+=1
        if refusals==(1 if 'lock' in w.off else 3):
            assert all(seen),('FULL',p.n); w.refusals+=1
            return 'full'
        yield
def leave(w,p,f,i,settled,has_place):
    if not has_place:
        # The fault of old: `me` is still 0.
        if 'zero' in w.off: f.slots[0].live=False; yield
        return
    s=f.slots[i]
    if settled or 'clears' in w.off and not p.joined: s.live=False
    s.buried_now=False
    if not p.joined: p.entering=None
    if p.file is f: p.file=None; p.me=None; p.joined=False
    yield
    f.unlock(p,[i]); yield
    last=True if 'halflast' in w.off else f.try_lock(p,ALL)
    yield
    if last:
        if w.name is f: w.remove(f,p)
        yield
        f.unlock(p,ALL)
def bury(w,p,f):
    for i in range(PLACES):
        s=f.slots[i]; live=s.live; yield
        if i==p.me or not live or f.others(p,i): continue
        yield
        if not f.try_lock(p,[i]): continue
        p.reaping=(f,i); yield
        p.reaping=None
        if not s.live: f.unlock(p,[i]); continue
        s.buried_now='noflag' not in w.off; yield
        s.held=None; yield
        s.live=False; s.buried_now=False; s.told=False; yield
        f.unlock(p,[i])
def tidy(w,p):
    for f in list(w.temporaries):
        p.opened.append(f); yield
        bytes_=[GATE] if 'gate' in w.off else ALL
        if f.temporary and f.try_lock(p,bytes_):
            yield
            if f in w.temporaries: w.temporaries.remove(f)
            yield
            f.unlock(p,bytes_)
def come(w,p):
    # Returns the file and the place, or None: refused.
    while True:
        entered=yield from enter(w,p)
        if entered=='full': return None
        if entered is not None:
            f,i,inherited=entered; s=f.slots[i]
            if inherited: s.buried_now=True; yield
            w.may_refuse()
            def appear():
                assert w.name is f,('NAMELESS',p.n)
                s.live=True; s.buried_now=False; p.file=f; p.me=i; p.joined=True; p.entering=None
            if 'early' in w.off: appear(); yield
            s.told=True; yield
            if not p.joined: appear(); yield
            if inherited: s.held=None; yield
            s.held=p; return f,i
        f=File(); w.temporaries.append(f); p.opened.append(f); yield
        if not f.try_lock(p,[GATE]) and 'unlocked' not in w.off: yield; continue
        had=f in w.temporaries
        yield
        f.try_lock(p,[0]); s=f.slots[0]; s.live=True; s.told=True; yield
        f.unlock(p,[GATE]); yield
        if f not in w.temporaries:
            assert not had,('LOST',p.n)
            f.unlock(p,ALL); yield; continue
        if w.name is not None: w.temporaries.remove(f); f.unlock(p,ALL); yield; continue
        w.temporaries.remove(f); f.temporary=False; w.name=f; p.file=f; p.me=0; p.joined=True; s.held=p; yield
        return f,0
def life(w,p):
    for _ in range(3):
        p.opened=[]; got=None
        if w.rng.random()<0.3: yield from tidy(w,p)
        try: got=yield from come(w,p)
        except Refused:
            e=p.entering
            if e: yield from leave(w,p,e[0],e[1],False,True)
            elif p.opened: yield from leave(w,p,p.opened[-1],0,False,False)
        if got:
            f,i=got
            for _ in range(w.rng.randrange(4)):
                yield from bury(w,p,f)
                if w.rng.random()<0.3: yield from tidy(w,p)
                yield
            f.slots[i].held=None; yield
            yield from leave(w,p,f,i,True,True)
        for f in p.opened: f.unlock(p,ALL)
def check(w):
    for p in w.processes:
        if p.joined and p.file: assert p.file.slots[p.me].live,('SLOT',p.n)
    f=w.name
    if f:
        for i,s in enumerate(f.slots):
            if not s.live and i not in f.locks: assert s.held is None,('LEAK',i)
def run(seed,off=frozenset()):
    w=World(seed,off); running=[]; killed=0
    for n in range(5):
        p=Process(w,n); w.processes.append(p); p.opened=[]; running.append((p,life(w,p)))
    while running:
        k=w.rng.randrange(len(running)); p,g=running[k]
        for _ in range(w.rng.choice([1,1,2,5,20])):
            if w.rng.random()<0.01 and killed<4:
                if p.joined and p.file: assert p.file.slots[p.me].told,('UNHEARD',p.n)
                g.close(); killed+=1
                for f in set(p.opened): f.unlock(p,ALL)
                w.processes.remove(p); running.pop(k); break
            try: next(g)
            except StopIteration: w.processes.remove(p); running.pop(k); break
            for f,seen in w.looking.values(): watch_full(w,f,seen)
            check(w)
        check(w)
    return killed,w.refusals
ABLATIONS='zero clears lock gate early noname halflast unlocked noflag'.split()
def main():
    if sys.argv[1:2]==['table']:
        bad=False
        for v in ['']+ABLATIONS:
            failed=None; totals=[0,0]; limit=300
            for seed in range(limit):
                try: totals=[a+b for a,b in zip(totals,run(seed,frozenset([v] if v else [])))]
                except AssertionError as e: failed=(seed+1,e.args[0][0]); break
            wrong=(failed is None)==bool(v); bad|=wrong
            print('%-9s %-22s %s%s'%(v or 'base','failed with seed %d'%failed[0] if failed else 'held for %d'%limit,failed[1] if failed else '%d killed, %d found it full'%tuple(totals),'   <-- WRONG' if wrong else ''),flush=True)
        sys.exit(bad)
    a=sys.argv[1:]; lo=int(a[0]) if a else 0; hi=int(a[1]) if len(a)>1 else lo+1000; off=frozenset(a[2:]); failed={}
    for seed in range(lo,hi):
        try: run(seed,off)
        except AssertionError as e: failed.setdefault(e.args[0][0],[]).append(seed)
    print({k:(len(v),v[:3]) for k,v in failed.items()} or 'held')
    sys.exit(bool(failed)!=bool(off))
if __name__=='__main__': main()
