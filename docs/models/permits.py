# Step-interleaving model of how the capacity of a ring is reserved (SC memory, every shared access = 1 step): counts per
# participant, bids, the line, and the reaper; beside them sends and receives, of which there is only what matters here: a send
# changes the first empty cell in the step in which the message is there. Cells, laps and blocks are in ring.py.
#
#   version   of the first empty cell: raised by a CAS with every grant, and by every send
#   count[p]  (tag, n): permits that p holds or is trying to get, and the number of the last bid that it won
#   bid       (number, state, p, n), state FREE | OPEN | GRANTED
#   line      (number, state, p, n), state FREE | OPEN
#   sum       bid, line, then the counts, in this order; not the bid, if the count of its process has its number
#   refused   only by two sums in a row that read the same words: else what has passed from one process to another is in it twice
#   grant     read the cell, then the sum (what is wanted is in it); with the messages more than the capacity: refused; CAS the
#             cell's version up
#   send      read the cell, then the sum; with the messages as much as the capacity: full; CAS the cell: sent
#   try       room for n? count[p]+=n; grant. Refused: count[p]-=n, then bid
#   bid       of a process one thread at a time. Somebody's bid in the word: conclude it, again. CAS the word: OPEN, number+1.
#             Conclude it. Mine if the tag of count[p] is its number
#   conclude  OPEN: grant; CAS the word to GRANTED or FREE. GRANTED: read count[p]; read the word: still GRANTED, or done; tag
#             is the number, or CAS (tag,n') to (number,n'+n); CAS the word to FREE
#   line      CAS the word: OPEN, number+1. Attempts: grant; count[p]+=n; CAS the word to FREE; if that fails it was passed
#             over: count[p]-=n. Passed over, or left: CAS the word to FREE
#   reaper    of p: bid of p OPEN: CAS it to FREE; GRANTED: conclude it; line of p: CAS it to FREE; count[p]'s n to 0
# Adversary: scheduling in bursts; SIGKILL of a process with all its threads at any step, reapers, too; participants used
# again; who stands in line is passed over at any time; a process that is stopped at some step until
# all others are at rest.
# Checked: granted permits never exceed the capacity; a permit that somebody has is in its count (and comes back with it);
# when all are at rest, no count, bid or line is left but for what is held. In rounds where all try at the same time and
# nobody gives anything back or dies: when they are done, nobody was refused for whom there is room. Who is refused at first sight
# could not have been served at some moment of that look, by all that was held, tried for, or wished for then, each once (who leaves
# the line with a grant is there twice for two steps).
#
# usage: permits.py FIRST_SEED LAST_SEED [variant]      variant: words joined by commas (none: the base)
#   nobid       who is refused does not bid (its fate is that of a try)
#   notag       the count rises with every conclusion
#   late        the count is read after the word was seen to be GRANTED
#   countsfirst the sum reads the counts before bid and line
#   early       a bid that is decided is counted after the word is FREE
#   nohelp      a bid that is in the way is taken for a refusal
#   overtake    a bid that is in the way is replaced
#   nobump      a grant does not raise the version
#   noreap      the reaper does not conclude bids
#   twice       a bid is added to the count that has its number
#   moving      who is refused at first sight has summed up once
#   nolook      who leaves the line with a grant does not look whether it was passed over
import random, sys
FREE, OPEN, GRANTED = 'FREE', 'OPEN', 'GRANTED'
class Wish(tuple):
    __slots__ = ()
    number = property(lambda s: s[0]); state = property(lambda s: s[1]); p = property(lambda s: s[2]); n = property(lambda s: s[3])
class M:
    def __init__(m, rng, procs, cap, v):
        m.rng = rng; m.v = v; m.cap = cap; m.version = 0; m.tail = m.head = 0; m.history = []; m.count = [(0, 0)] * procs
        m.bid = Wish((0, FREE, 0, 0)); m.line = Wish((0, FREE, 0, 0)); m.mutex = [None] * procs
        m.held = [0] * procs               # ghost: what threads of p have
        m.stat = dict.fromkeys('granted refused sent bids won helped passed kills reaped'.split(), 0)
    messages = property(lambda m: m.tail - m.head)
    def now(m):                            # ghost: what there is no room for, each once
        bid = m.bid.n if m.bid.state != FREE and m.count[m.bid.p][0] != m.bid.number else 0
        return sum(n for _, n in m.count) + bid + (m.line.n if m.line.state != FREE else 0) + m.messages
def on(m, w): return w in m.v
def cas(m, name, a, b):
    yield
    if getattr(m, name) == a: setattr(m, name, b); return True
    return False
def cas_count(m, p, a, b):
    yield
    if m.count[p] == a: m.count[p] = b; return True
    return False
def add(m, p, n):
    yield
    tag, k = m.count[p]
    assert k + n >= 0, ('NEGATIVE', p, k, n)
    m.count[p] = (tag, k + n)
def total(m, seen=None):
    s = 0; bid = None; seen = [] if seen is None else seen
    def wishes():
        nonlocal bid
        yield
        bid = m.bid if m.bid.state != FREE else None
        seen.append(m.bid)
        yield
        seen.append(m.line)
        return m.line.n if m.line.state != FREE else 0
    if not on(m, 'countsfirst'): s += yield from wishes()
    for p in range(len(m.count)):
        yield
        seen.append(m.count[p]); s += m.count[p][1]
        if bid and bid.p == p and m.count[p][0] == bid.number and not on(m, 'twice'): bid = None
    if on(m, 'countsfirst'): s += yield from wishes()
    return s + (bid.n if bid else 0)
def settled(m):
    before = None
    while True:
        seen = []; k = yield from total(m, seen)
        if seen == before: return k
        before = seen
def grant(m):
    while True:
        yield
        c = m.version; t = m.tail
        k = yield from total(m)
        yield
        if k + t - m.head > m.cap:
            k = yield from settled(m)
            yield
            if k + t - m.head > m.cap: return False
        if on(m, 'nobump'): return True
        if (yield from cas(m, 'version', c, c + 1)): return True
def full(m): assert sum(m.held) + m.messages <= m.cap, ('CAPACITY', m.held, m.messages, m.cap)
def has(m, p, n):                          # ghost: it is had from here on
    m.held[p] += n; m.stat['granted'] += 1; full(m)
def send(m):
    yield
    c = m.version
    k = yield from total(m)
    yield
    if k + m.messages + 1 > m.cap: return
    yield
    if m.version == c: m.version += 1; m.tail += 1; m.stat['sent'] += 1; full(m)
def receive(m):
    yield
    if m.messages: m.head += 1
def conclude(m, w):
    g = Wish((w.number, GRANTED, w.p, w.n)); f = Wish((w.number, FREE, 0, 0))
    if w.state == OPEN:
        ok = yield from grant(m)
        yield from cas(m, 'bid', w, g if ok else f)
    if on(m, 'early'):
        if not (yield from cas(m, 'bid', g, f)): return
        tag, k = m.count[w.p]
        yield
        m.count[w.p] = (w.number, m.count[w.p][1] + w.n)
        return
    while True:
        if on(m, 'late'):
            yield
            if m.bid != g: return
        yield
        before = m.count[w.p]
        if not on(m, 'late'):
            yield
            if m.bid != g: return
        if before[0] == w.number and not on(m, 'notag'): break
        if (yield from cas_count(m, w.p, before, (w.number, before[1] + w.n))): break
    yield from cas(m, 'bid', g, f)
def contend(m, p, n):
    while m.mutex[p] is not None: yield 'wait'
    m.mutex[p] = True
    m.stat['bids'] += 1
    try:
        while True:
            yield
            w = m.bid
            if w.state != FREE and not (on(m, 'overtake') and w.state == OPEN):
                if on(m, 'nohelp'): return False
                m.stat['helped'] += 1
                yield from conclude(m, w)
                continue
            mine = Wish((w.number + 1, OPEN, p, n))
            if (yield from cas(m, 'bid', w, mine)):
                yield from conclude(m, mine)
                yield
                won = m.count[p][0] == mine.number
                if won: has(m, p, n); m.stat['won'] += 1
                return won
    finally: m.mutex[p] = None
def look(m, n):
    yield
    t = m.tail; began = len(m.history)
    k = yield from total(m)
    yield
    if k + t - m.head + n <= m.cap: return True
    if not on(m, 'moving'):
        k = yield from settled(m)
        yield
        if k + t - m.head + n <= m.cap: return True
    most = max(m.history[began:] + [m.now()])
    assert most + n > m.cap, ('COUNTED TWICE', k, most, n)
    return False
def attempt(m, p, n):
    if (yield from look(m, n)):
        yield from add(m, p, n)
        if (yield from grant(m)): has(m, p, n); return True
        yield from add(m, p, -n)
        if not on(m, 'nobid') and (yield from contend(m, p, n)): return True
    m.stat['refused'] += 1
    return False
def give(m, p, n):
    m.held[p] -= n
    yield from add(m, p, -n)
def in_line(m, p, n):
    yield
    w = m.line
    if w.state != FREE: return False
    mine = Wish((w.number + 1, OPEN, p, n)); gone = Wish((w.number + 1, FREE, 0, 0))
    if not (yield from cas(m, 'line', w, mine)): return False
    for _ in range(m.rng.choice([1, 3, 10])):
        yield
        if m.line != mine: return False
        if (yield from grant(m)):
            yield from add(m, p, n)
            stood = yield from cas(m, 'line', mine, gone)
            if stood or on(m, 'nolook'): has(m, p, n); return True
            yield from add(m, p, -n)
            return False
    yield from cas(m, 'line', mine, gone)
    return False
def pass_over(m):
    yield
    w = m.line
    if w.state != FREE and (yield from cas(m, 'line', w, Wish((w.number, FREE, 0, 0)))): m.stat['passed'] += 1
def forget(m, p):
    while not on(m, 'noreap'):
        yield
        w = m.bid
        if w.state == FREE or w.p != p: break
        if w.state == OPEN: yield from cas(m, 'bid', w, Wish((w.number, FREE, 0, 0)))
        else: yield from conclude(m, w)
    yield
    w = m.line
    if w.state != FREE and w.p == p: yield from cas(m, 'line', w, Wish((w.number, FREE, 0, 0)))
    yield
    m.count[p] = (m.count[p][0], 0)
def worker(m, p, rng, ops):
    mine = []
    for _ in range(ops):
        n = rng.choice([1, 1, 1, 2, m.cap // 2 + 1, m.cap]); x = rng.random()
        if x < .15: yield from send(m)
        elif x < .3: yield from receive(m)
        elif mine and x < .5: yield from give(m, p, mine.pop())
        elif x < .9:
            if (yield from attempt(m, p, n)): mine.append(n)
        elif x < .97:
            if (yield from in_line(m, p, n)): mine.append(n)
        else: yield from pass_over(m)
    while mine: yield from give(m, p, mine.pop())
def play(rng, m, threads, pk, reborn):
    """Runs threads of processes, kills some, buries them; all come to rest."""
    bursts = rng.choice([[1], [1, 1, 2, 4], [1, 2, 5, 15]]); steps = 0
    reapers = {}; frozen = {}; pf = rng.choice([0, .002, .01])
    while threads or reapers or frozen:
        if not threads and not reapers:
            threads.update(frozen); frozen = {}
        names = list(threads) + list(reapers)
        name = rng.choice(names)
        for _ in range(rng.choice(bursts)):
            steps += 1
            assert steps < 200000, ('livelock?',)
            kind, p = name[0], name[1]
            gens = threads if kind == 'w' else reapers
            if name not in gens: break
            if pk and kind == 'w' and rng.random() < pk:
                for t in [t for t in list(threads) + list(frozen) if t[1] == p]: (threads if t in threads else frozen).pop(t).close()
                m.held[p] = 0; m.mutex[p] = None; m.stat['kills'] += 1
                reapers[('r', p)] = forget(m, p)
                break
            if pk and kind == 'r' and rng.random() < pk:     # another reaper begins anew
                gens.pop(name).close(); reapers[name] = forget(m, p)
                break
            if pf and kind == 'w' and not frozen and rng.random() < pf * (10 if m.mutex[p] else 1) and any(t[1] != p for t in threads):
                for t in [t for t in threads if t[1] == p]: frozen[t] = threads.pop(t)
                break
            try: m.history.append(m.now()); waits = next(gens[name])
            except StopIteration:
                gens.pop(name)
                if kind == 'r':
                    m.stat['reaped'] += 1
                    again = reborn(p)
                    if again: threads[('w', p, rng.random())] = again
                break
            if waits == 'wait': break
def run(seed, v):
    rng = random.Random(seed)
    procs = rng.choice([2, 2, 3]); cap = rng.choice([1, 1, 2, 3, 8])
    m = M(rng, procs, cap, v)
    if seed % 2:                           # a life
        ops = rng.choice([6, 12, 20])
        threads = {('w', p, i): worker(m, p, rng, ops) for p in range(procs) for i in range(rng.choice([1, 1, 2]))}
        lives = [3]
        def reborn(p):
            lives[0] -= 1
            return worker(m, p, rng, ops) if lives[0] > 0 else None
        play(rng, m, threads, rng.choice([0, .002, .01]), reborn)
        assert m.held == [0] * procs, ('HELD', m.held)
    else:                                  # rounds: all try at the same time, and nobody dies
        for _ in range(4):
            got = []
            def once(p, n):
                if (yield from attempt(m, p, n)): got.append((p, n))
            n = rng.choice([1, 1, cap])
            threads = {('w', p, i): once(p, n) for p in range(procs) for i in range(rng.choice([1, 2]))}
            tried = len(threads)
            play(rng, m, threads, 0, lambda p: None)
            most = min(tried, cap // n)
            assert len(got) == most, ('REFUSED', len(got), most)
            for p, k in got:
                for _ in give(m, p, k): pass
    assert all(k == 0 for _, k in m.count), ('COUNT LEFT', m.count)
    assert m.bid.state == FREE and m.line.state == FREE, ('WISH LEFT', m.bid, m.line)
    return m
if __name__ == '__main__':
    a, b = int(sys.argv[1]), int(sys.argv[2]); var = sys.argv[3] if len(sys.argv) > 3 else ''
    v = set(var.split(',')) if var else set()
    tot = {}; fails = {}
    for s in range(a, b):
        try:
            m = run(s, v)
            for k, x in m.stat.items(): tot[k] = tot.get(k, 0) + x
        except AssertionError as e:
            x = (e.args or ['assert'])[0]; fails.setdefault(str(x[0] if isinstance(x, tuple) else x), []).append(s)
    print('variant', var or 'base', 'runs', b - a, 'failed', sum(map(len, fails.values())), 'totals', tot)
    for k, x in sorted(fails.items()): print('  FAIL', k, len(x), x[:3])
