# Step-interleaving model of the channel ring: one CAS on the cell, private positions, intents, capacity without a counter,
# permits, and the reaper (SC memory, every shared access = 1 step; blocks are one granule long).
#
#   cell[p%N] = (tag, value), tag = 2*lap+full in a few bits, lap = p//N; full: value = granule, empty: value = version
#   word[g]   = (state, owner, gen): FREE, ALO(lane), RCV(lane) (received, not acknowledged), FLY(sender lane or NOBODY)
#   intent    per lane: SEND(g,gen) | RECV(g,gen) | RETRY(g,gen) | none
#   permits   one bit per permit (bits) and its owner (owner[i]); set: owner, then bit; cleared: bit, then owner
#   gen       a generation, modulo 1, 2 or 3 in half of the runs: then the words come round all the time
#   send      payload; intent=SEND(g,gen); W=FLY(me,gen); CAS the cell at p empty(lap)->full(lap),g: sent; intent=none.
#             Full: W=ALO(me,gen), intent=none. A block that was received, or refused, is sent under gen+1 (in half of the runs a
#             new one, too). The tag at p tells: the exact one: read the permit bits, k of them; position
#             p+k-capacity must have been emptied; CAS. One less: full, or far in the future: read the hint, then judge.
#             Any other: p was filled, go on. With a permit no look at the capacity; its bit is cleared after the CAS
#   reserve   owner, bit; at the first unfilled p read the cell, then the bits (mine too); position p+k-capacity-1 must have
#             been emptied; CAS the cell's version up: granted (whoever read the bits before has lost its CAS); else bit,
#             owner back: full
#   receive   retry ring first; cell at p full(lap): read the word FLY(x,gen); intent=RECV(g,gen); CAS the cell to
#             empty(lap+1): received; W=RCV(me,gen); intent=none. Later W=FREE(gen+1) (that is the acknowledgement), or
#             W=ALO(me,gen), new payload, sent on. Some do nothing else but receive and send on
#   hints     head and tail, raised by max every third operation; read at the start of each operation
#   reaper    of d, held as in carve.py (a dead lane whose intent is in the way is taken too). Looks: C all cells (the retry
#             ring's too), I the intents of all lanes that I do not hold.
#             1 permits of d: bit, owner
#             2 SEND, RECV or RETRY(g,gen) of d and W is FLY(x,gen): I, C, I. A cell names g: nothing to do. An intent names
#               it: later. No one: the mark, CAS W to FLY(me,gen), which no one else writes; I, C, I again. Now somebody: CAS W
#               to FLY(NOBODY,gen). No one: CAS W to FREE(gen+1), or (at least once), if RECV or RETRY of a lane that I
#               hold names it, into the retry ring
#             3 words: ALO(d) FREE; RCV(d) FREE or retry ring; FLY(d,gen): C: a cell names g: CAS to FLY(NOBODY,gen); if
#               not, as 2, for it may be the mark of a reaper that died, and who sends it may live
#             4 intent of d = none; d is REAPED, or DEAD as before if something was left for later
#             two reapers that each hold a lane the other wants: the one that began with the higher lane lets go of what
#             it has not settled, and leaves it alone for its next eight passes
#             into the retry ring: intent=RETRY(g,gen+1); CAS W -> FLY(NOBODY,gen+1); cell CAS; intent=none
# Adversary: scheduling in bursts (coarse or fine, by run); SIGKILL of workers and reapers at any step (more often under an
# intent, above all under RECV); receivers held between the cell and the word until the granule flies again, then killed; reapers
# held between their looks until the block is in somebody's hands, and before their CAS until it flies again with that word; in
# a third of the runs one lane frozen at some step until everybody else is at rest, then it goes on or is killed; lanes used
# again by newcomers; tags that wrap; handles that slept through whole tag ranges.
# Checked: every send and receive happens at the true tail and head (no gap, FIFO, nothing twice); queue and granted permits
# never exceed the capacity; Full only if it was full at some time during the call, Empty likewise; payloads; nobody loses a
# word it owns; generations never fall; no word or permit of a reaped lane is left. With a lane frozen, at rest: nothing is
# leaked but what it works on, the rest drains the queue and fills it again. At the end: all that was sent was received (at
# least once: acknowledged exactly once; at most once: only what a dead lane took is missing), no leak, the whole capacity
# can be had.
#
# usage: ring.py FIRST_SEED LAST_SEED [variant]      variant: words joined by commas (none: the base)
#   mode=amo|alo  at most once | at least once for all seeds (default: by seed)
#   reread      no SEND intent: the receiver reads the cell again between the word and its RECV intent, so that RECV can only
#               name what is or was in that cell; the reaper then looks C, I only
#   vyukov      the sender claims the position in the shared tail word, then writes the cell
#   exact       the hint is not read when the operation begins
#   trust       full is what the shared hints say, not the cell
#   nolap       the tag has no lap, only full or empty
#   nocap lapoff  no capacity rule | the rule looks a lap too far back
#   nobump countlate barecount  a grant does not raise the cell's version | the permit is counted after the look | permits
#               are a bare counter
#   lateword    word IN_FLIGHT after the cell
#   norecv earlyclear  no RECV intent | cleared before the word
#   nolive notake  the reaper does not look at live lanes' intents | does not take the dead lane that is in the way
#   ifirst cfirst  no look I after C | no look I before C
#   code        at most once, and the reaper of an earlier version of recovery.rs, step by step
#   latesend    the SEND intent is cleared before the CAS
#   nomark      no mark: the CAS is from the word that was read before the looks
#   nowrap      generations do not come round
#   nosendgen   no new generation for a block that is sent on, or again
#   never caught: nomark,nowrap (generations that do not come round are enough), nowrap,nosendgen (so is the mark), nohint (a
#   mismatch is judged without another look at the hint), nonobody (words of the dead that a cell names keep their owner)
import random, sys
FREE,ALO,RCV,FLY='FREE','ALO','RCV','FLY'
NOBODY=-1
def on(m,w): return w in m.v
class Ring:
    def __init__(s,N,cap,tb,P0,hint):
        s.N=N; s.cap=cap; s.mask=(1<<tb)-1; s.P0=P0; s.tail=s.head=hint; s.gt=s.gh=P0; s.ghost={}
        s.cell=[None]*N
        for p in range(P0,P0+N): s.cell[p%N]=(s.tag(p,0),0)
    def tag(s,p,full): return 2*(p//s.N)+full & s.mask
class Handle:
    def __init__(s,t,h): s.t=t; s.h=h; s.n=0
class M:
    def __init__(s,rng,lanes,G,v):
        s.v=v; s.rng=rng; s.mod=None if on(s,'nowrap') or on(s,'code') else rng.choice([None,None,None,1,2,3]); s.W=[(FREE,0,0)]*G; s.pay=[None]*G
        N=rng.choice([2,2,4]); cap=rng.choice([1,2]) if N==2 else rng.choice([1,2,3,4])
        tb=8 if N==2 else 7; s.wrap=N<<(tb-1)
        P0=5*s.wrap+s.wrap-rng.randrange(3*N); 
        s.main=Ring(N,cap,1 if on(s,'nolap') else tb,P0,P0-rng.randrange(3))
        NR=1
        while NR<G: NR*=2
        s.retry=Ring(NR,None,8,0,0)
        s.intent=[None]*lanes; s.slot=['LIVE']*lanes; s.dead=set(); s.defer=[0]*lanes; s.epoch=[0]*lanes
        s.bits=0; s.owner=[None]*3; s.granted=set(); s.count=0
        s.mark={}; s.yield_={}; s.why=[]; s.wish={}; s.seq={}; s.sent=set(); s.unsent=set(); s.received={}; s.acked={}; s.calls={}
        s.steps=0; s.stat=dict.fromkeys('sent received fwd full empty permits permsent dropped crash rcrash frozen reborn reap took keep marks unmarks requeued deferred taken stale stalekill'.split(),0)
    def put(s,g,w):
        assert s.mod or w[2]>=s.W[g][2],('GEN',g,s.W[g],w)
        s.W[g]=w
    def next(s,gen): return (gen+1)%s.mod if s.mod else gen+1
    def in_cells(s,g): return any(c[0]&1 and c[1]==g for r in (s.main,s.retry) for c in r.cell)
    def level(s): return s.main.gt-s.main.gh
    def held(s): return s.count if on(s,'barecount') else bin(s.bits).count('1')
    def changed(s):                     # ghost: was it full, was it empty during a call
        n=s.level(); k=s.held()
        for c in s.calls.values():
            if n+k>=s.main.cap+c.get('mine',0): c['full']=True
            if n==0: c['empty']=True
# every generator yields once before each shared access
def ld(m,g): yield; return m.W[g]
def stw(m,g,w): yield; m.put(g,w)
def cas(m,g,a,b):
    yield
    if m.W[g]==a: m.put(g,b); return True
    return False
def setint(m,me,v): yield; m.intent[me]=v
def raise_hint(m,r,h,side):
    h.n+=1
    if h.n%3==0:
        yield
        if side: r.tail=max(r.tail,h.t)
        else: r.head=max(r.head,h.h)
def ack(m,msg):
    m.acked[msg]=m.acked.get(msg,0)+1
    assert m.acked[msg]==1,('TWICE',msg)
def unfilled(m,r,h,need):                # the first unfilled position, its cell; None: full. need(): position that must be empty
    p=h.t
    if not on(m,'exact'):
        yield
        p=max(p,r.tail)
    while True:
        if on(m,'trust') and r is m.main:    # the shared hints say how many there are
            yield
            if p-r.head>=r.cap: return None
        yield
        c=r.cell[p%r.N]; e=r.tag(p,0)
        full=False
        if c[0]==e:
            q=None if need is None else (yield from need(p))
            if q is not None and on(m,'lapoff'): q-=r.N
            if q is not None and q>=r.P0:
                if q>=p: full=True
                else:
                    yield
                    full=r.cell[q%r.N][0]==r.tag(q,1)
            if not full: return p,c
        elif c[0]==(e-1)&r.mask: full=True
        if not full: p+=1; continue
        if on(m,'nohint'): return None
        yield
        if r.tail>p: p=r.tail; continue
        return None
def push(m,me,r,h,g,msg,permit):         # True: sent
    def need(p):
        if permit or r.cap is None or on(m,'nocap'): return None
        yield
        return p+m.held()-r.cap
    if permit or r.cap is None or on(m,'nocap'): need=None
    if on(m,'vyukov') and r is m.main:
        while True:
            yield
            p=r.tail
            yield
            if r.cell[p%r.N][0]!=r.tag(p,0):
                yield
                if r.tail!=p: continue
                return False
            if need:
                q=yield from need(p)
                if q>=r.P0 and (q>=p or r.cell[q%r.N][0]==r.tag(q,1)): return False
            yield
            if r.tail!=p: continue
            r.tail=p+1
            yield
            r.cell[p%r.N]=(r.tag(p,1),g); r.gt=max(r.gt,p+1); r.ghost[p]=msg; m.sent.add(msg); m.changed()
            return True
    while True:
        x=yield from unfilled(m,r,h,need)
        if x is None: return False
        p,c=x
        yield
        if r.cell[p%r.N]!=c: h.t=p; continue
        r.cell[p%r.N]=(c[0]+1,g)
        assert p==r.gt,('GAP',p,r.gt)
        r.gt+=1; r.ghost[p]=msg
        if r is m.main:
            m.sent.add(msg); m.stat['sent']+=1
            if permit: m.granted.discard(permit)
            if permit=='bare': pass
            assert m.level()+len(m.granted)<=r.cap,('CAPACITY',m.level(),m.granted,r.cap)
            m.changed()
        h.t=p+1
        return True
def reserve(m,me,h):
    r=m.main; i=None
    if on(m,'barecount'):
        yield
        m.count+=1; m.changed(); i=('bare',me,m.steps)
    else:
        for j in range(len(m.owner)):
            yield
            if m.owner[j] is None: m.owner[j]=me; i=j+1; break
        if i is None: return None
        yield
        m.bits|=1<<i-1; m.changed()
    m.calls[me]={'full':False,'mine':1}; m.changed()
    def need(p):
        yield
        return p+m.held()-r.cap-1
    while True:
        x=yield from unfilled(m,r,h,None if on(m,'countlate') else need)
        if x is None:
            c=m.calls.pop(me); assert c['full'],('FALSE FULL','reserve')
            yield from unreserve(m,me,i)
            return None
        p,c=x
        if not on(m,'nobump'):
            yield
            if r.cell[p%r.N]!=c: continue
            r.cell[p%r.N]=(c[0],c[1]+1)
        if on(m,'countlate'):
            q=yield from need(p)
            yield
            if q>=r.P0 and r.cell[q%r.N][0]==r.tag(q,1):
                m.calls.pop(me); yield from unreserve(m,me,i); return None
        m.calls.pop(me); m.granted.add(i); m.stat['permits']+=1; h.t=p
        assert m.level()+len(m.granted)<=r.cap,('CAPACITY','grant',m.level(),m.granted,r.cap)
        return i
def unreserve(m,me,i):
    m.granted.discard(i)
    yield
    if on(m,'barecount'): m.count-=1; m.changed(); return
    m.bits&=~(1<<i-1); m.changed()
    yield
    m.owner[i-1]=None
def send(m,me,hs,g,permit=None,again=False):  # W[g] is ALO(me); again: was sent before, or received; True: sent
    yield
    k=(me,m.epoch[me]); m.seq[k]=m.seq.get(k,0)+1; msg=(me,m.epoch[me],m.seq[k]); m.pay[g]=msg
    w=yield from ld(m,g)
    assert w[:2]==(ALO,me),('STOLEN',g,w,me)
    gen=w[2] if (m.fresh and not again) or on(m,'nosendgen') else m.next(w[2])
    m.unsent.add(msg)
    if not on(m,'reread'): yield from setint(m,me,('SEND',g,gen))
    if not on(m,'lateword'): yield from stw(m,g,(FLY,me,gen))
    if on(m,'latesend'): yield from setint(m,me,None)
    m.calls[me]={'full':False}; m.changed()
    ok=yield from push(m,me,m.main,hs[0],g,msg,permit)
    c=m.calls.pop(me)
    if ok:
        if on(m,'lateword'): yield from stw(m,g,(FLY,me,gen))
        if not on(m,'reread'): yield from setint(m,me,None)
        if permit: yield from unreserve(m,me,permit); m.stat['permsent']+=1
        yield from raise_hint(m,m.main,hs[0],1)
        return True
    assert not permit,('PERMIT REFUSED',permit)
    assert c['full'] or on(m,'vyukov'),('FALSE FULL','send',m.main.cell)
    m.stat['full']+=1
    yield from stw(m,g,(ALO,me,gen))
    if not on(m,'reread'): yield from setint(m,me,None)
    return False
def receive(m,me,hs):                    # (g, msg) or None
    for r,h in ((m.retry,hs[1]),(m.main,hs[0])):
        m.calls[me]={'empty':False}; m.changed()
        p=h.h
        if not on(m,'exact'):
            yield
            p=max(p,r.head)
        while True:
            yield
            c=r.cell[p%r.N]; e=r.tag(p,1)
            if c[0]==e:
                g=c[1]; m.mark[me]=(g,m.W[g][2])
                w=yield from ld(m,g)
                m.mark.pop(me,None)
                if w[0]!=FLY and not on(m,'lateword'):
                    yield
                    assert r.cell[p%r.N]!=c,('DAMAGED',g,w)
                    continue
                if on(m,'reread'):
                    yield
                    if r.cell[p%r.N]!=c: continue
                if not on(m,'norecv'): yield from setint(m,me,('RECV',g,w[2]))
                yield
                if r.cell[p%r.N]!=c:
                    yield from setint(m,me,None); continue
                r.cell[p%r.N]=(c[0]+1&r.mask,0)
                assert p==r.gh or on(m,'vyukov'),('FIFO',p,r.gh)
                r.gh=p+1; msg=r.ghost[p]; m.calls.pop(me,None)
                m.received.setdefault(msg,[]).append((me,m.epoch[me])); m.changed(); m.stat['received']+=1
                h.h=p+1
                if on(m,'earlyclear'): yield from setint(m,me,None)
                yield from stw(m,g,(RCV,me,w[2]))
                yield from setint(m,me,None)
                yield from raise_hint(m,r,h,0)
                yield
                assert m.pay[g]==msg,('PAYLOAD',g,m.pay[g],msg)
                return g,msg
            if c[0]==(e-1)&r.mask:
                if not on(m,'nohint'):
                    yield
                    if r.head>p: p=r.head; continue
                break
            p+=1
        c=m.calls.pop(me)
        if r is m.main:
            assert c['empty'] or on(m,'vyukov'),('FALSE EMPTY',m.main.cell)
            m.stat['empty']+=1
    return None
def owned(m,g,me,st):
    w=yield from ld(m,g)
    assert w[:2]==(st,me),('STOLEN',g,w,me,st)
    return w
def alloc(m,me,rng):
    c=list(range(len(m.W))); rng.shuffle(c)
    for g in c:
        w=yield from ld(m,g)
        if w[0]==FREE and (yield from cas(m,g,w,(ALO,me,w[2]))): return g
    return None
def free(m,me,g,st,msg=None):
    w=yield from owned(m,g,me,st)
    yield
    m.put(g,(FREE,0,m.next(w[2])))
    if msg: ack(m,msg)
def release(m,me,h):                     # what I have, whatever it is
    g,msg=h
    yield from (free(m,me,g,ALO) if msg in ('A','B') else free(m,me,g,RCV,msg))
# ---- reaper
def takeable(m,d):
    st=m.slot[d]
    return st=='DEAD' or (st!='REAPED' and st!='LIVE' and st[1] in m.dead)
def look_i(m,me,g,gen,held):             # False: no lane that I do not hold names (g, gen); None: took one more, look again
    for o in range(len(m.intent)):
        if o in held or o==me or (on(m,'nolive') and o not in m.dead): continue
        yield
        i=m.intent[o]
        if not i or i[1:]!=(g,gen): continue
        yield
        if takeable(m,o) and not on(m,'notake'):
            m.slot[o]=('REAPING',me); held.append(o); m.stat['taken']+=1; return None
        if m.slot[o] not in('LIVE','REAPED') and o<held[0]: m.yield_[me]=True   # its reaper goes first: I give way
        return True
    return False
def look_c(m,g):
    for r in (m.main,m.retry):
        for i in range(r.N):
            yield
            c=r.cell[i]
            if c[0]&1 and c[1]==g: return True
    return False
def again(m,me,g,w,hr):                  # w, taken by the dead, goes into the retry ring
    n=m.next(w[2])
    yield from setint(m,me,('RETRY',g,n))
    ok=yield from cas(m,g,w,(FLY,NOBODY,n))
    if ok:
        m.stat['requeued']+=1
        ok=yield from push(m,me,m.retry,hr,g,m.pay[g],None)
        assert ok
    yield from setint(m,me,None)
    return ok
def looks(m,me,g,gen,held):              # 'cell' | 'busy' | 'none' | None: took one more, look again
    n=False if on(m,'cfirst') or on(m,'reread') else (yield from look_i(m,me,g,gen,held))
    if n is None: return None
    if not n:
        m.wish[me]=[m.rng.choice(['out','hands']),g,300]
        if (yield from look_c(m,g)): return 'cell'
        m.wish[me]=['quiet',g,300]
        n=False if on(m,'ifirst') else (yield from look_i(m,me,g,gen,held))
        if n is None: return None
    return 'busy' if n else 'none'
def settle(m,me,g,w,held,hr):            # w is in nobody's hands. True: done
    redo=False
    if m.alo:
        for o in held:
            yield
            redo|=m.intent[o] in (('RECV',g,w[2]),('RETRY',g,w[2]))
    if redo: return (yield from again(m,me,g,w,hr))
    if not (yield from cas(m,g,w,(FREE,0,m.next(w[2])))): return False
    m.stat['took']+=1
    return True
def resolve(m,me,d,held,hr):             # the flight that d names. True: settled
    yield
    it=m.intent[d]
    return not it or (yield from flight(m,me,d,it[1],it[2],held,hr))
def flight(m,me,d,g,gen,held,hr):        # True: settled
    tries=0
    while True:
        w=yield from ld(m,g)
        if w[0]!=FLY or w[2]!=gen: return True
        n=yield from looks(m,me,g,gen,held)
        if n=='none':
            m.wish[me]=['back',(g,w),300]
            if not on(m,'nomark'):
                mark=(FLY,me,gen)
                if w!=mark and not (yield from cas(m,g,w,mark)): continue
                m.stat['marks']+=1; w=mark
                n=yield from looks(m,me,g,gen,held)
                if n!='none':
                    m.stat['unmarks']+=1
                    yield from cas(m,g,mark,(FLY,NOBODY,gen))
        if n is None: continue
        if n=='cell': return True
        if n=='busy':
            tries+=1
            if tries<3: continue
            m.stat['deferred']+=1; m.defer[d]+=1; return False
        if (yield from settle(m,me,g,w,held,hr)): return True
def scan(m,me,d,held,hr):
    done=True
    for g in range(len(m.W)):
        while True:
            w=yield from ld(m,g)
            if w[0]==FREE or w[1]!=d: break
            if w[0]==ALO or (w[0]==RCV and not m.alo):
                yield from cas(m,g,w,(FREE,0,m.next(w[2]))); break
            if w[0]==RCV:
                yield from again(m,me,g,w,hr); break
            if (yield from look_c(m,g)):
                if on(m,'nonobody') or (yield from cas(m,g,w,(FLY,NOBODY,w[2]))): m.stat['keep']+=1; break
                continue
            if not (yield from flight(m,me,d,g,w[2],held,hr)): done=False
            elif not on(m,'nonobody'): yield from cas(m,g,w,(FLY,NOBODY,w[2]))   # in a cell by now, if it is what it was
            break
    return done
def scan_code(m,me,d):                   # as recovery.rs had it (variant 'code'): C once, then word, I, CAS for each
    yield
    i=m.intent[d]; named=set()
    if i and i[0]=='RECV' and m.W[i[1]][::2]==(FLY,i[2]): m.wish[me]=['out',i[1],300]
    for r in (m.main,m.retry):
        for k in range(r.N):
            yield
            c=r.cell[k]
            if c[0]&1: named.add(c[1])
    if i and i[0]=='RECV': m.wish[me]=['quiet',i[1],300]
    for g in range(len(m.W)):
        w=yield from ld(m,g)
        if w[0]==FREE: continue
        lost=w[0]!=FLY and w[1]==d
        if w[0]==FLY and (w[1]==d or i==('RECV',g,w[2])) and g not in named:
            lost=True
            for o in range(len(m.intent)):
                if o==d: continue
                yield
                if m.intent[o] and m.intent[o][1:]==(g,w[2]): lost=False; m.why.append((g,w,d,o,o in m.dead)); break
        if lost:
            if not (yield from cas(m,g,w,(FREE,0,w[2]+1))): m.why.append((g,w,d,'cas'))
            elif w[0]==FLY: m.why.append((g,w,d,'freed')); m.stat['took']+=1
        elif w[:2]==(FLY,d):
            yield from cas(m,g,w,(FLY,NOBODY,w[2])); m.stat['keep']+=1
    return True
def reaper(m,me):
    hr=Handle(0,0); skip={}
    while True:
        for d in range(len(m.slot)):
            if skip.get(d,0): skip[d]-=1; continue
            if d!=me and takeable(m,d):
                m.yield_[me]=False
                m.slot[d]=('REAPING',me); held=[d]; ok={}
                for o in held:
                    for i in range(len(m.owner)):
                        yield
                        if m.owner[i]==o:
                            yield
                            m.bits&=~(1<<i); m.changed(); m.granted.discard(i+1)
                            yield
                            m.owner[i]=None
                    if on(m,'code'): ok[o]=yield from scan_code(m,me,o); continue
                    ok[o]=(yield from resolve(m,me,o,held,hr))
                    k=(yield from scan(m,me,o,held,hr))
                    ok[o]=ok[o] and k
                for o in held:
                    if ok[o]: yield from setint(m,o,None)
                    yield
                    if ok[o] and not on(m,'nonobody'):
                        assert not any(w[0]!=FREE and w[1]==o for w in m.W) and o not in m.owner,('NAME LEFT',o,m.W)
                    m.slot[o]='REAPED' if ok[o] else 'DEAD'; m.stat['reap']+=ok[o]
                    if m.yield_[me] and not ok[o]: skip[o]=8
        yield
# ---- the runs
def worker(m,me,rng,S,ops):
    hs=(Handle(S(),S()),Handle(0,0)); have=[]; m.have[me]=have   # have: (granule, 'A') mine to send | (granule, message)
    permits=m.permits[me]=[]
    role=rng.choice(['tx','rx','both','both','on','on'])
    mine=lambda: [h for h in have if h[1] in ('A','B')]   # 'A': never sent; 'B': under another generation only
    for _ in range(ops):
        x=rng.random()
        if role=='on':                   # receives, and sends on; at first there may be nothing
            if not have:
                q=yield from receive(m,me,hs)
                if q: have.append(q)
                elif x<.3:
                    g=yield from alloc(m,me,rng)
                    if g is not None: have.append((g,'A'))
            if have:
                h=have[0]
                if h[1] not in ('A','B'):
                    w=yield from owned(m,h[0],me,RCV)
                    yield
                    m.put(h[0],(ALO,me,w[2])); ack(m,h[1]); m.stat['fwd']+=1
                    have[0]=h=(h[0],'B')
                if (yield from send(m,me,hs,h[0],None,h[1]=='B')): have.remove(h)
                else: have[0]=(h[0],'B')
            continue
        if x<.08 and role!='rx' and not on(m,'vyukov'):
            if len(permits)<2:
                i=yield from reserve(m,me,hs[0])
                if i: permits.append(i)
            else:
                i=permits.pop(); m.stat['dropped']+=1
                yield from unreserve(m,me,i)
        elif x<(.75 if role=='tx' else .15 if role=='rx' else .45):
            if not mine():
                g=yield from alloc(m,me,rng)
                if g is None: continue
                have.append((g,'A'))
            h=mine()[0]
            p=permits.pop() if permits and rng.random()<.6 else None
            if (yield from send(m,me,hs,h[0],p,h[1]=='B')): have.remove(h)
            else: have[have.index(h)]=(h[0],'B')
        elif x<.9 and role!='tx':
            q=yield from receive(m,me,hs)
            if q: have.append(q)
        elif have:
            h=rng.choice(have); g,msg=h
            if msg not in ('A','B') and rng.random()<.5:
                w=yield from owned(m,g,me,RCV)
                yield
                m.put(g,(ALO,me,w[2])); ack(m,msg); m.stat['fwd']+=1
                have.remove(h); have.append((g,'B'))
            else:
                yield from release(m,me,h)
                have.remove(h)
    for i in list(permits):
        permits.remove(i)
        yield from unreserve(m,me,i)
    while have:                          # settle everything I hold
        yield from release(m,me,have[-1])
        have.pop()
def run(seed,v):
    rng=random.Random(seed)
    T=rng.choice([2,3,3,4]); R=3
    m=M(rng,T+R,rng.choice([1,2,2,3,4,6]),v); m.have={}; m.permits={}
    m.fresh='code' in v or rng.random()<.5   # a new block is sent under the generation that it has, as the code does
    m.alo='mode=alo' in v or ('mode=amo' not in v and 'code' not in v and seed&1==1)
    def S():                             # a lower bound: now and then a handle that slept for long
        k=rng.choice([0,0,0,1,2,3]); m.stat['stale']+=k>0
        return max(0,m.main.P0-k*m.wrap-rng.choice([0,0,0,1,2,m.main.N,rng.randrange(m.wrap)]))
    nops=lambda: rng.choice([6,12,24])
    bursts=rng.choice([[1],[1,1,1,2,4],[1,1,2,3,5,9,15],[1,1,1,2,4,9,30,80]])
    hunt=rng.random()<.6               # kill receivers between intent and word, above all
    gens={i:worker(m,i,rng,S,nops()) for i in range(T)}
    for i in range(T,T+R): gens[i]=reaper(m,i)
    alive=list(range(T)); reapers=list(range(T,T+R)); reborn=0; everdead=set()
    pc=rng.choice([0,0.003,0.01,0.02]); boost=rng.choice([1,4,8])
    pf=rng.choice([0,0,0.005,0.02]); frozen=None
    def kill(i):
        gens.pop(i).close(); m.slot[i]='DEAD'; m.dead.add(i); m.calls.pop(i,None); m.mark.pop(i,None); everdead.add((i,m.epoch[i]))
        if i<T:
            m.stat['crash']+=1
            if i in alive: alive.remove(i)
            m.have[i]=[]
            for p in m.permits.get(i,()): m.granted.discard(p)
        else: m.stat['rcrash']+=1; reapers.remove(i)
    def step(i):
        nonlocal frozen
        busy=m.intent[i] is not None or any(s==('REAPING',i) for s in m.slot)
        k=boost if busy else 1
        if hunt and i<T and len(alive)>1 and m.intent[i] and m.intent[i][0]=='RECV' and rng.random()<.12: kill(i); return False
        if pc and rng.random()<pc*k:
            if i<T and len(alive)>1: kill(i); return False
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
    parked=None; ptime=0
    def park(i):                         # hold a receiver that read a cell until the granule flies again; then kill it
        nonlocal parked,ptime
        if parked is None and hunt and i<T and i in m.mark and i in gens and len(alive)>2 and rng.random()<.08: parked=i; ptime=300
        if parked is None: return
        if parked not in m.mark or parked not in alive: parked=None; return
        g,gen=m.mark[parked]; ptime-=1; w=m.W[g]
        if ptime<0: parked=None
        elif w[0]==FLY and w[2]>gen:
            i=parked; parked=None
            for _ in range(3):
                if i in alive and m.intent[i] is None: step(i)
            if i in alive and len(alive)>1: kill(i); m.stat['stalekill']+=1
    def bad(): return [d for d,s in enumerate(m.slot) if s not in('LIVE','REAPED')]
    def go():
        nonlocal reborn
        cur=None; burst=0
        while alive:
            if burst<=0:
                cur=rng.choice(alive+[rng.choice(reapers)]); burst=rng.choice(bursts)
            burst-=1
            park(cur)
            if cur in m.wish and hunt:   # hold a reaper until its look misleads it the most
                kind,g,left=m.wish[cur]
                ok=m.W[g][0]==FLY and not m.in_cells(g) if kind=='out' else m.W[g][0]!=FLY if kind=='hands' else \
                    m.W[g[0]]==g[1] and m.in_cells(g[0]) if kind=='back' else \
                    m.W[g][0]!=FLY or not any(m.intent[o] and m.intent[o][1]==g for o in range(T) if o not in m.dead)
                if not ok and left and len(alive)>1: m.wish[cur][2]-=1; burst=0; continue
                del m.wish[cur]; burst=rng.choice([1,3,30])
            if cur==parked or cur==frozen or cur not in gens or (cur<T and cur not in alive): burst=0; continue
            if not step(cur): burst=0
            if reborn<8:
                for d in range(T):
                    if m.slot[d]=='REAPED' and rng.random()<.1:
                        reborn+=1; m.stat['reborn']+=1; m.epoch[d]+=1; m.dead.discard(d); m.slot[d]='LIVE'
                        gens[d]=worker(m,d,rng,S,nops()); alive.append(d)
    def settle():
        m.defer=[0]*len(m.defer)
        while True:
            b=[d for d in bad() if not (m.slot[d]!='DEAD' and m.slot[d][1]==frozen)]
            if not b or (frozen is not None and all(m.slot[d]=='DEAD' and m.defer[d]>12 for d in b)): break
            i=rng.choice([x for x in reapers if x!=frozen])
            for _ in range(rng.choice([1,1,3,10,50])):
                if not step(i): break
    def drive(gen):
        try:
            while True: next(gen); m.steps+=1; assert m.steps<150000,'livelock?'
        except StopIteration as e: return e.value
    def probe(hold):
        me=len(m.slot); m.slot.append('LIVE'); m.intent.append(None); m.defer.append(0); m.epoch.append(0)
        hs=(Handle(S(),S()),Handle(0,0))
        def drain():
            n=0
            while True:
                q=drive(receive(m,me,hs))
                if not q: return n
                drive(free(m,me,q[0],RCV,q[1])); n+=1
        drain()
        assert m.level()==0,('STALL',m.main.cell,m.main.gh,m.main.gt)
        fr=sum(w[0]==FREE for w in m.W); n=0
        while n<fr:
            g=drive(alloc(m,me,rng))
            if g is None or not drive(send(m,me,hs,g)):
                if g is not None: drive(free(m,me,g,ALO))
                break
            n+=1
        assert n>=min(fr,m.main.cap-hold),('CAPACITY LEAK',n,fr,hold,m.main.cap,m.bits,m.owner)
        assert drain()==n,('STALL',n)
        m.slot.pop(); m.intent.pop(); m.defer.pop(); m.epoch.pop()
    def check(F):
        lanes=set()
        if F is not None: lanes={F}|{d for d,s in enumerate(m.slot) if s==('REAPING',F)}
        ints=[m.intent[o][1] for o in lanes if m.intent[o]]
        cells=[c[1] for r in (m.main,m.retry) for c in r.cell if c[0]&1]
        assert len(cells)==len(set(cells)),('TWO CELLS',cells)
        for g,w in enumerate(m.W):
            if g in cells: assert w[0]==FLY,('CELL',g,w); continue
            if w[0]==FREE: continue
            assert g in ints or w[1] in lanes or any(h[0]==g for h in m.have.get(w[1],())),('LEAK',g,w,m.intent,m.slot)
        for i,o in enumerate(m.owner):
            assert o is None or o in lanes or i+1 in m.permits[o],('PERMIT LEAK',i,o)
        return sum(m.bits>>i&1 for i in range(len(m.owner)))
    go(); settle()
    if frozen is not None:
        hold=check(frozen); probe(hold)
        f=frozen; frozen=None; pf=0
        if f<T: alive.append(f)
        if rng.random()<.4 and (f<T or len(reapers)>1): kill(f)
        go(); settle()
    b=bad()
    assert not b,('NOT REAPED',b,m.slot,m.intent)
    check(None); probe(0); check(None)
    assert not m.bits and not m.granted and not any(m.owner),('PERMIT LEAK',m.bits,m.owner)
    assert all(w[0]==FREE for w in m.W),('LEAK',m.W)
    assert not any(m.intent),('INTENT',m.intent)
    for msg in m.sent:
        assert msg in m.received,('LOST',msg)
        if m.alo: assert msg in m.acked,('LOST','not acknowledged',msg)
        elif msg not in m.acked: assert all(x in everdead for x in m.received[msg]),('LOST','taken',msg,m.received[msg])
        if not m.alo: assert len(m.received[msg])==1,('TWICE',msg)
    for msg in m.received:
        if msg not in m.sent: assert m.alo and msg[:2] in everdead,('NOT SENT',msg)
    return m
if __name__=='__main__':
    a,b=int(sys.argv[1]),int(sys.argv[2]); var=sys.argv[3] if len(sys.argv)>3 else ''
    v=set(var.split(',')) if var else set()
    tot={}; fails={}
    for s in range(a,b):
        try:
            m=run(s,v)
            for k,x in m.stat.items(): tot[k]=tot.get(k,0)+x
        except AssertionError as e:
            x=(e.args or ['assert'])[0]; fails.setdefault(str(x[0] if isinstance(x,tuple) else x),[]).append(s)
        except Exception as e: fails.setdefault(type(e).__name__+' '+str(e)[:40],[]).append(s)
    print('variant',var or 'base','runs',b-a,'failed',sum(map(len,fails.values())),'totals',tot)
    for k,x in sorted(fails.items()): print('  FAIL',k,len(x),x[:3])
