# Step-interleaving model of the end of a channel: who enters, leaves, closes, drains and buries, in entries and memory that are
# used again (SC memory, every shared access = 1 step). The rules E1 to E7 stand at the head of src/attachment/ends.rs.
#
#   entry     state = (version, phase, flags, ring, owner), changed by CAS only, each change with a new version; bitmaps of senders,
#             receivers, pins and parked ones, a bit per participant, changed by the participant and its reaper
#   ring      cells in a block of memory; an entry that goes frees it, and the block is somebody's raw memory, or another ring,
#             at once. cell[p%N] = (lap, full, value); empty: value = version, full: value = message
#   pin       read the state; set the bit; CAS from that state. Who has an end sets the bit only
#   unpin     settle; if nobody else is there (ends first, then pins) and nothing is to be kept: CAS to DEAD, bit cleared, and the
#             ring is freed. Else the bit is cleared; then look again: nobody at all and LIVE: pin anew
#   enter     pin; bits of the ends; CAS of the state (HAD_*, not GONE); unpin. A receiver: not while UNDRAINED, it unpins then
#             (which drains) and looks again
#   leave     parked bit cleared; pin; bit of the end cleared; unpin
#   settle    review: read the state, look at the bitmaps, CAS: GONE, and with the last receiver UNDRAINED. Drain: seal, look at the
#             state again, free what stands before the seal, CAS UNDRAINED away from that very state
#   send      look at the cell, then at the flags, then CAS of the cell
#   seal      CAS of the first unfilled cell to a new version
#   close     CLOSED into the state by CAS; seal. Who finds nothing and CLOSED seals, looks once more, and then says that it is over
#   reaper    of a dead participant: pin every live entry, clear the bits of the dead there, unpin; what is DEAD and its own: free
# Adversary: scheduling in bursts; SIGKILL of workers and of reapers at any step; lanes frozen at any step (more often between the
# look at the flags and the CAS of the cell, and between CLOSED and the seal) until all the others are at rest, or for a while; blocks and entries used again at once.
# Checked: nobody touches a ring in another life of its memory, or frees what another entry has; what is drained was sent before all
# receivers went, or while there was none; nothing is sent after a receiver has heard that all is over; a parked bit is cleared in
# the life that it was set in. At the end: what was sent was received, drained, or lost with a receiver that was killed; no channel
# without ends is left unless it waits for its first receiver; no block is lost; who is left alone is told so.
#
# usage: ends.py FIRST_SEED LAST_SEED [variant]      variant: words joined by commas (none: the base)
#   nopin       who leaves, or buries, acts on what it has seen without a pin
#   noversion   a pin is a bit: no CAS from the state that was read
#   beyond      a drain frees all that it finds, not what stands before the seal
#   novalidate  a drain does not look at the state again after the seal
#   nowait      a receiver enters an UNDRAINED channel
#   noseal      who closes, or says that it is over, raises no cell
#   lazy        only who closes raises the cell
#   flagsfirst  a sender looks at the flags before the cell
#   nolook      no second look after the pin's bit is cleared
#   pinsfirst   who looks whether anybody is there looks at the pins before the ends
#   nosettle    a reaper clears bits, and does nothing else
#   lateplace   a parked bit is cleared after the end has gone
import random, sys
FREE,LIVE,DEAD='FREE','LIVE','DEAD'
HADS,HADR,SGONE,RGONE,CLOSED,UNDR='HADS','HADR','SGONE','RGONE','CLOSED','UNDR'
N=2
class Ring:
    def __init__(s,block,life,p0):
        s.block=block; s.life=life; s.tail=s.head=p0; s.over=False; s.epoch=0
        s.cell=[None]*N
        for p in range(p0,p0+N): s.cell[p%N]=(p//N,0,0)
class Entry:
    def __init__(s):
        s.state=(0,FREE,frozenset(),None,None,None); s.bits={k:set() for k in('s','r','pin','parked')}
class Pt:                                 # a participant
    def __init__(s,i): s.i=i; s.ends={}; s.parked=None; s.alive=True; s.name=0
class M:
    def __init__(s,rng,v):
        s.v=v; s.rng=rng; s.entries=[Entry() for _ in range(rng.choice([1,2]))]
        s.blocks=[None,None,None]; s.life=0; s.msgs={}; s.next=0; s.hot=set()
        s.stat=dict.fromkeys('sent received drained refused over made removed killed rkilled frozen reaped anew'.split(),0)
    def on(s,w): return w in s.v
    def touch(s,r):                       # every access to a ring's memory
        assert s.blocks[r.block] is r,('MEMORY',r.life)
    def cas(s,i,a,b):
        e=s.entries[i]
        if e.state!=a: return False
        e.state=(a[0]+1,)+b[1:]
        return True
def flags(st,add=(),sub=()): return (st[0],st[1],(st[2]|frozenset(add))-frozenset(sub))+st[3:]
# every generator yields once before each shared access
def anybody(m,i,me,but):                  # whether anybody is there; but: whose pin does not count
    e=m.entries[i]
    for k in(('pin','s','r') if m.on('pinsfirst') else ('s','r','pin')):
        yield
        if e.bits[k]-({but} if k=='pin' else set()): return True
    return False
def try_pin(m,me,i,found):
    e=m.entries[i]
    yield
    e.bits['pin'].add(me)
    yield
    if m.on('noversion') or m.cas(i,found,found): return True
    e.bits['pin'].discard(me)
    return False
def pin(m,me,i,found):
    if (yield from try_pin(m,me,i,found)): return True
    if (yield from pin_anew(m,me,i,None)): yield from unpin(m,me,i)
    return False
def pin_anew(m,me,i,old):
    while True:
        yield
        now=m.entries[i].state
        if now[1]!=LIVE or now==old or m.on('nolook'): return False
        if (yield from anybody(m,i,me,None)): return False
        if (yield from try_pin(m,me,i,now)): m.stat['anew']+=1; return True
def unfilled(m,r,h):                      # the first unfilled position and its cell, or that position and None: all are filled
    yield
    m.touch(r); p=max(h,r.tail)
    while True:
        yield
        m.touch(r); c=r.cell[p%N]
        if c[0]==p//N and not c[1]: return p,c
        if c[0]<p//N: return p,None
        p+=1
def seal(m,r):
    while True:
        p,c=yield from unfilled(m,r,0)
        if c is None: return p
        yield
        m.touch(r)
        if r.cell[p%N]==c: r.cell[p%N]=(c[0],0,c[2]+1); return p
def take(m,r,h,before):                   # the oldest message that stands before a position, and its position
    yield
    m.touch(r); p=max(h,r.head)
    while True:
        if p>=before: return None
        yield
        m.touch(r); c=r.cell[p%N]
        if c[0]==p//N and c[1]:
            yield
            m.touch(r)
            if r.cell[p%N]==c:
                r.cell[p%N]=(c[0]+1,0,0); r.head=max(r.head,p+1)
                return c[2],p
        elif c[0]>p//N: p+=1
        else: return None
def drain(m,me,i,seen):
    r=seen[3]
    before=yield from seal(m,r)
    if m.on('beyond'): before=1<<60
    if not m.on('novalidate'):
        yield
        if m.entries[i].state!=seen: return
    h=0
    while True:
        x=yield from take(m,r,h,before)
        if x is None: break
        msg,h=x
        assert msg['epoch']<r.epoch or msg['alone'],('DRAINED NEW',msg)
        assert msg['fate'] is None; msg['fate']='drained'; m.stat['drained']+=1
    yield
    m.cas(i,seen,flags(seen,(),(UNDR,)))
def settle(m,me,i):
    e=m.entries[i]
    while True:
        yield
        seen=e.state
        if seen[1]!=LIVE: return
        f=set()
        for k,had,gone in(('s',HADS,SGONE),('r',HADR,RGONE)):
            yield
            if not e.bits[k] and had in seen[2] and gone not in seen[2]: f.add(gone)
        if RGONE in f: f.add(UNDR)
        if f:
            yield
            if m.cas(i,seen,flags(seen,f)) and RGONE in f: seen[3].epoch+=1
            continue
        if UNDR in seen[2]: yield from drain(m,me,i,seen)
        else: return
def queued(m,r):
    yield
    m.touch(r); p=r.head
    while True:
        yield
        m.touch(r); c=r.cell[p%N]
        if c[0]==p//N: return bool(c[1])
        if c[0]<p//N: return False
        p+=1
def unpin(m,me,i,pinned=True):
    e=m.entries[i]
    while True:
        yield from settle(m,me,i)
        yield
        seen=e.state; removed=False; alone=None
        if seen[1]==LIVE and not (yield from anybody(m,i,me,me)):
            alone=seen
            keep=UNDR in seen[2] or (HADR not in seen[2] and CLOSED not in seen[2] and (yield from queued(m,seen[3])))
            if not keep:
                yield
                removed=m.cas(i,seen,(0,DEAD,seen[2],seen[3],me,seen[5]))
        if pinned:
            yield
            e.bits['pin'].discard(me)
        if removed:
            yield from dismantle(m,me,i)
            return
        if not pinned or not (yield from pin_anew(m,me,i,alone)): return
def dismantle(m,me,i):
    e=m.entries[i]; st=e.state; r=st[3]
    assert m.blocks[r.block] is r,('FREED TWICE',r.life)
    for c in r.cell:
        assert not c[1],('LEFT IN IT',c)
    m.stat['removed']+=1
    m.blocks[r.block]=None                # the block is the dismantler's, then anybody's: in one step with the entry
    e.state=(st[0]+1,FREE,frozenset(),None,None,None)
    yield
def enter(m,pt,kinds):                    # ends of a channel of the participant's name; True: entered
    me=pt.i
    while True:
        yield
        i=next((i for i,e in enumerate(m.entries) if e.state[1]==LIVE and e.state[5]==pt.name),None)
        if i is None:                     # the register of the directory makes this one step
            i=next((i for i,e in enumerate(m.entries) if e.state[1]==FREE),None)
            b=next((b for b,r in enumerate(m.blocks) if r is None),None)
            if i is None or b is None: return None
            m.life+=1; r=Ring(b,m.life,m.rng.randrange(2)); m.blocks[b]=r
            e=m.entries[i]; e.state=(e.state[0]+1,LIVE,frozenset(),r,None,pt.name); m.stat['made']+=1
        e=m.entries[i]; found=e.state
        if not (yield from pin(m,me,i,found)): continue
        for k in kinds:
            yield
            e.bits[k].add(me)
        joined=False
        while True:
            yield
            seen=e.state
            if seen[1]!=LIVE or (UNDR in seen[2] and 'r' in kinds and not m.on('nowait')): break
            add=([HADS] if 's' in kinds else [])+([HADR] if 'r' in kinds else [])
            sub=([SGONE] if 's' in kinds else [])+([RGONE] if 'r' in kinds else [])
            yield
            if m.cas(i,seen,flags(seen,add,sub)):
                assert seen[3] is found[3],('ANOTHER CHANNEL',found,seen)
                joined=True; break
        if joined:
            for k in kinds: pt.ends[k]=(i,seen[3],[0])
        else:
            for k in kinds:
                yield
                e.bits[k].discard(me)
        yield from unpin(m,me,i)
        if joined: return True
def leave(m,pt,k):
    me=pt.i; i,r,_=pt.ends[k]; e=m.entries[i]
    last=len(pt.ends)==1
    def place():
        if pt.parked and last:
            yield
            assert e.state[3] is pt.parked,('PARKED BIT OF ANOTHER',)
            e.bits['parked'].discard(me); pt.parked=None
    if not m.on('lateplace'): yield from place()
    pinned=not m.on('nopin')
    if pinned:
        yield
        e.bits['pin'].add(me)
    yield
    e.bits[k].discard(me); del pt.ends[k]
    yield from unpin(m,me,i,pinned)
    if m.on('lateplace'): yield from place()
def send(m,pt):
    i,r,h=pt.ends['s']; e=m.entries[i]
    shut=frozenset((RGONE,CLOSED))
    if m.on('flagsfirst'):
        yield
        if e.state[2]&shut: m.stat['refused']+=1; return
    while True:
        p,c=yield from unfilled(m,r,h[0])
        if c is None: return
        if not m.on('flagsfirst'):
            yield
            if e.state[2]&shut: m.stat['refused']+=1; return
        m.hot.add(pt.i)
        yield
        m.hot.discard(pt.i)
        m.touch(r)
        if r.cell[p%N]==c: break
    m.next+=1
    msg={'n':m.next,'life':r.life,'epoch':r.epoch,'alone':RGONE in e.state[2] or HADR not in e.state[2],'fate':None}
    assert not r.over,('AFTER THE END',msg)
    r.cell[p%N]=(c[0],1,msg); r.tail=max(r.tail,p+1); h[0]=p+1
    m.msgs[m.next]=msg; m.stat['sent']+=1
def receive(m,pt):
    i,r,h=pt.ends['r']; e=m.entries[i]
    for last in(False,True):
        x=yield from take(m,r,h[0],1<<60)
        if x:
            msg,p=x; h[0]=p+1
            assert msg['life']==r.life and msg['fate'] is None,('RECEIVED',msg)
            msg['fate']='received'; m.stat['received']+=1
            return
        yield
        if CLOSED not in e.state[2]: return
        if last: r.over=True; m.stat['over']+=1; return
        if not m.on('noseal') and not m.on('lazy'): yield from seal(m,r)
def close(m,pt):
    i,r,_=pt.ends['r']; e=m.entries[i]
    while True:
        yield
        seen=e.state
        yield
        if m.cas(i,seen,flags(seen,(CLOSED,))): break
    m.hot.add(pt.i)
    yield
    m.hot.discard(pt.i)
    if not m.on('noseal'): yield from seal(m,r)
def work(m,pt,rng):
    for _ in range(rng.randrange(4,18)):
        k=rng.random()
        if not pt.ends:
            pt.name=rng.randrange(2)
            yield from enter(m,pt,rng.choice(['s','r','r','sr']))
            yield
        elif k<0.35: yield from leave(m,pt,rng.choice(sorted(pt.ends)))
        elif k<0.45 and 'r' in pt.ends and not pt.parked:
            i,r,_=pt.ends['r']
            yield
            m.entries[i].bits['parked'].add(pt.i); pt.parked=r
        elif k<0.52 and 'r' in pt.ends: yield from close(m,pt)
        elif 'r' in pt.ends and (k<0.75 or 's' not in pt.ends): yield from receive(m,pt)
        elif 's' in pt.ends: yield from send(m,pt)
    while pt.ends: yield from leave(m,pt,rng.choice(sorted(pt.ends)))
def reap(m,me,d):
    for i,e in enumerate(m.entries):
        yield
        e.bits['parked'].discard(d)
        pinned=False
        while True:
            yield
            found=e.state
            if found[1]==DEAD and found[4]==d:
                yield from dismantle(m,me,i)
                continue
            if found[1]!=LIVE or m.on('nosettle') or m.on('nopin'): break
            if (yield from pin(m,me,i,found)): pinned=True; break
        for k in('s','r','pin'):
            yield
            e.bits[k].discard(d)
        if pinned: yield from unpin(m,me,i)
        elif m.on('nopin'): yield from unpin(m,me,i,False)
        elif not m.on('nosettle') and (yield from pin_anew(m,me,i,None)): yield from unpin(m,me,i)
    m.stat['reaped']+=1
class Lane:
    def __init__(s,gen,pt,kind): s.gen=gen; s.pt=pt; s.kind=kind; s.frozen=0
def run(seed,variant=frozenset()):
    rng=random.Random(seed); m=M(rng,variant); ids=iter(range(1000))
    def worker():
        pt=Pt(next(ids)); return Lane(work(m,pt,rng),pt,'worker')
    lanes=[worker() for _ in range(rng.choice([2,3,4]))]; more=rng.randrange(3)
    toreap=[]; reaping={}
    killing=rng.random()<0.6; freezing=rng.random()<0.5; coarse=rng.choice([1,3,12])
    steps=0
    def start_reaper(d):
        pt=Pt(next(ids)); l=Lane(reap(m,pt.i,d),pt,'reaper'); reaping[l]=d; lanes.append(l)
    while True:
        while toreap: start_reaper(toreap.pop())
        awake=[l for l in lanes if not l.frozen]
        if not awake:
            if not lanes: break
            rng.choice(lanes).frozen=0
            continue
        l=rng.choice(awake)
        for _ in range(rng.randrange(1,coarse+1)):
            steps+=1
            assert steps<60000,('livelock?',)
            x=rng.random()
            if killing and x<0.012 and (l.kind=='worker' or rng.random()<0.5):
                m.stat['killed' if l.kind=='worker' else 'rkilled']+=1
                l.gen.close(); lanes.remove(l); toreap.append(l.pt.i)
                if l.kind=='reaper': toreap.append(reaping.pop(l))
                break
            if freezing and x>(0.8 if l.pt.i in m.hot else 0.992):
                l.frozen=rng.choice([1,40,400]); m.stat['frozen']+=1
                break
            try: next(l.gen)
            except StopIteration:
                lanes.remove(l)
                if l.kind=='reaper': reaping.pop(l)
                elif more: more-=1; lanes.append(worker())
                break
        for o in lanes:
            if o.frozen>1: o.frozen-=1
            elif o.frozen==1 and rng.random()<0.02: o.frozen=0
    # At rest, and everybody has left.
    for i,e in enumerate(m.entries):
        assert not any(e.bits.values()),('BIT',i,e.bits)
        st=e.state
        assert st[1] in(FREE,LIVE),('NOT CLEANED',st[1])
        if st[1]==LIVE:
            left=[c[2] for c in st[3].cell if c[1]]
            assert left and HADR not in st[2],('LEAK',i,st[2],left)
            for msg in left: msg['fate']='waits'
    used={id(e.state[3]) for e in m.entries if e.state[1]==LIVE}
    for r in m.blocks: assert r is None or id(r) in used,('LEAK OF A BLOCK',)
    for msg in m.msgs.values(): assert msg['fate'],('LOST',msg)
    return m.stat
def main():
    a,b=int(sys.argv[1]),int(sys.argv[2]); v=set(sys.argv[3].split(',')) if len(sys.argv)>3 else set()
    fails={}; total={}
    for seed in range(a,b):
        try:
            for k,n in run(seed,v).items(): total[k]=total.get(k,0)+n
        except AssertionError as e:
            x=(e.args or ['assert'])[0]; k=x[0] if isinstance(x,tuple) else str(x)
            fails.setdefault(k,[]).append((seed,x))
    print(b-a,'seeds',total)
    for k,l in fails.items(): print('FAILED',k,len(l),l[:3])
    sys.exit(bool(fails))
if __name__=='__main__': main()
