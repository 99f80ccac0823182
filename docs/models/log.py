# Step-interleaving model of the log of a broadcast: one cell per message, a mark per cell and group, closing, retiring, void
# positions, and the reaper (SC memory, every shared access = 1 step; blocks are one granule long).
#
#   cell[p%N] = (lap, step, g), step: 0 empty, 1 open, 3 closed (or void: g is a block of a lap before)
#   mark[i][c] = (state, lap, x): FRESH, DONE, SKIPPED (x were skipped), HELD (x = lane, tries), RETURNED (x = tries)
#   word[g] = (state, owner, gen): FREE, ALO(lane), FLY; intent per lane: SEND(g,gen) | RECV(g,gen) | none
#   publish   at the first p that is not filled: cell(p-capacity) open: for each group that has not taken it: lag: CAS mark to
#             SKIPPED(x+1); block: full. CAS it closed; retire it. Cell of p closed a lap ago: retire it, or if it is pinned CAS it
#             to (lap, 3, g): void, next p. Else: intent=SEND; W=FLY; CAS cell open; intent=none
#   retire i  cell closed, and no mark beside it pins (looked at after the cell); intent=RECV; CAS cell to empty(lap+1);
#             W=ALO(me); intent=none; W=FREE
#   take      first p that the group has not taken and that is open: CAS mark to HELD(me); look at the cell again (what was closed
#             meanwhile was closed by who saw the mark: all groups here joined before the first message)
#   done      CAS mark to DONE; if the cell is open and no group wants it or holds it: CAS it closed; retire it
#   lagged    a member that meets SKIPPED turns all of its group's to DONE and adds them up
#   reaper    of d: marks HELD by d become RETURNED (group 0, at least once) or DONE; then each position is settled; then words:
#             ring.py is the model of that, here it is one step, which waits while a living intent names the block
# Adversary: scheduling in bursts; SIGKILL of publishers, members and reapers at any step; members that hold messages for long.
# Checked: nobody reads a payload that was freed; a group takes positions in order; every message is received or missed once
# by each group (at least once: received last by one who lived); a group that blocks misses none; at the end no block is left.
#
# usage: log.py FIRST_SEED LAST_SEED [variant]
#   nolook      who closes or retires does not look at the marks
#   giveup      a member whose message was closed meanwhile gives it up
#   ackfirst    a member looks whether it is the last before it writes its mark
#   nosettle    the reaper settles nothing
#   nobury      the reaper leaves the marks of the dead
#   keepopen    a position that will be void closes nothing
#   bare        a skipped message is counted in a word of its own, after the mark
import random, sys

class Killed(Exception): pass

class Model:
    def __init__(self, rng, variant):
        self.rng, self.v = rng, variant
        self.cap = rng.choice([1, 2]); self.N = 2 * self.cap * rng.choice([1, 2]); self.G = 14
        self.kinds = ['block', 'lag', rng.choice(['lag', 'block'])]
        self.cell = [(0, 0, None)] * self.N
        self.mark = [[('FRESH', 0, 0)] * len(self.kinds) for _ in range(self.N)]
        self.word = [('FREE', None, 0)] * self.G; self.pay = [None] * self.G
        self.intent = {}; self.published = []; self.taken = [dict() for _ in self.kinds]
        self.finished = [dict() for _ in self.kinds]; self.missed = [0] * len(self.kinds); self.bare = [0] * len(self.kinds)
        self.void = set()

    def at(self, p): return p % self.N, p // self.N
    def has_taken(self, mark, lap): return mark[0] != 'FRESH' and mark[1] >= lap
    def pins(self, mark): return mark[0] in ('HELD', 'RETURNED')

    def cas(self, i, a, b):
        if self.cell[i] != a: return False
        self.cell[i] = b; return True

    def cas_mark(self, i, c, a, b):
        if self.mark[i][c] != a: return False
        self.mark[i][c] = b
        if b[0] in ('HELD', 'SKIPPED') and a[0] not in ('HELD', 'RETURNED'):
            p = b[1] * self.N + i
            assert p not in self.taken[c], f'{p} is taken twice by group {c}'
            before = [q for q, _ in self.published if q < p and q not in self.taken[c]]
            assert not before, f'group {c} takes {p} before {before}'
            self.taken[c][p] = b[0]
        return True

    def free(self, g):
        assert not any(self.pins(self.mark[i][c]) for i in range(self.N) for c in range(len(self.kinds))
                       if self.cell[i][2] == g and self.cell[i][1]), f'{g} is freed while it is named'
        self.word[g] = ('FREE', None, self.word[g][2] + 1); self.pay[g] = 'dead'

    def retire(self, lane, i):
        while True:
            cell = self.cell[i]; yield
            if cell[1] != 3: return
            if self.v != 'nolook':
                for c in range(len(self.kinds)):
                    pinned = self.pins(self.mark[i][c]); yield
                    if pinned: return
            g = cell[2]; word = self.word[g]; yield
            if word[0] != 'FLY': continue
            self.intent[lane] = ('RECV', g, word[2]); yield
            if self.cas(i, cell, (cell[0] + 1, 0, None)):
                yield
                self.word[g] = ('ALO', lane, word[2]); yield
                self.intent[lane] = None; yield
                self.free(g); yield
                return
            yield
            self.intent[lane] = None; yield

    def settle(self, lane, p):
        i, lap = self.at(p)
        cell = self.cell[i]; yield
        if cell[:2] == (lap, 1):
            for c in range(len(self.kinds)):
                mark = self.mark[i][c]; yield
                if self.pins(mark) or not self.has_taken(mark, lap): return
            self.cas(i, cell, (lap, 3, cell[2])); yield
        yield from self.retire(lane, i)

    def room(self, lane, p):
        if p < 0: return True
        i, lap = self.at(p)
        cell = self.cell[i]; yield
        if cell[:2] != (lap, 1): return True
        for c, kind in enumerate(self.kinds):
            while True:
                mark = self.mark[i][c]; yield
                if self.has_taken(mark, lap): break
                if kind == 'block': return False
                n = mark[2] + 1 if mark[0] == 'SKIPPED' else 1
                if self.v == 'bare':
                    if self.cas_mark(i, c, mark, ('SKIPPED', lap, 0)): yield; self.bare[c] += 1
                else: self.cas_mark(i, c, mark, ('SKIPPED', lap, n))
                yield
        self.cas(i, cell, (lap, 3, cell[2])); yield
        yield from self.retire(lane, i)
        return True

    def publish(self, lane, number, tries=40):
        p = 0; g = None
        for _ in range(tries):
            i, lap = self.at(p); cell = self.cell[i]; yield
            if cell[0] > lap or cell[:2] in ((lap, 1), (lap, 3)): p += 1; continue
            if cell[:2] == (lap - 1, 1): return False
            empty = cell[:2] == (lap, 0)
            if empty or self.v != 'keepopen':
                if not (yield from self.room(lane, p - self.cap)): break
            if not empty:
                yield from self.retire(lane, i)
                if self.cell[i] == cell: self.cas(i, cell, (lap, 3, cell[2])) and self.void.add(p)
                yield
                continue
            if g is None:
                found = [g for g in range(self.G) if self.word[g][0] == 'FREE']
                if not found: return False
                g = found[0]; self.word[g] = ('ALO', lane, self.word[g][2]); yield
                self.pay[g] = number; yield
            gen = self.word[g][2]
            self.intent[lane] = ('SEND', g, gen); yield
            self.word[g] = ('FLY', lane, gen); yield
            if self.cas(i, cell, (lap, 1, g)):
                self.published.append((p, number)); yield
                self.intent[lane] = None; yield
                return True
            yield
            self.word[g] = ('ALO', lane, gen); yield
            self.intent[lane] = None; yield
        if g is not None: self.free(g); yield
        return False

    def count_missed(self, c):
        n = 0
        for i in range(self.N):
            while True:
                mark = self.mark[i][c]; yield
                if mark[0] != 'SKIPPED': break
                if self.cas_mark(i, c, mark, ('DONE', mark[1], 0)):
                    # Told at once: whoever is killed after this has been told.
                    self.missed[c] += mark[2]; yield; break
                yield

    def receive(self, lane, c):
        if c == 0:
            for i in range(self.N):
                mark = self.mark[i][c]; yield
                if mark[0] == 'RETURNED' and self.cas_mark(i, c, mark, ('HELD', mark[1], (lane, mark[2]))):
                    return mark[1] * self.N + i, self.cell[i][2]
        p = 0
        for _ in range(200):
            i, lap = self.at(p); cell = self.cell[i]; yield
            if cell[0] < lap or cell[:2] == (lap, 0): return None
            mark = self.mark[i][c]; yield
            if mark[0] == 'SKIPPED': yield from self.count_missed(c); continue
            if cell[:2] == (lap, 1) and not self.has_taken(mark, lap):
                held = ('HELD', lap, (lane, 0))
                if not self.cas_mark(i, c, mark, held): yield; continue
                yield
                if self.cell[i] != cell and self.v == 'giveup':
                    self.cas_mark(i, c, held, ('DONE', lap, 0)); yield
                    yield from self.retire(lane, i)
                    continue
                return p, cell[2]
            p += 1
        return None

    def member(self, lane, c, rounds):
        for _ in range(rounds):
            got = yield from self.receive(lane, c)
            if got is None: yield; continue
            p, g = got; number = dict(self.published)[p]
            assert g is not None, f'group {c} holds {p}, which is gone'
            for _ in range(self.rng.choice([0, 2, 40])):
                assert self.pay[g] == number, f'group {c} reads {self.pay[g]} at {p}'
                yield
            yield from self.done(lane, c, p)

    def done(self, lane, c, p):
        i, lap = self.at(p)
        if self.v == 'ackfirst': yield from self.settle(lane, p)
        mark = self.mark[i][c]; yield
        assert mark[0] == 'HELD' and mark[1] == lap and mark[2][0] == lane
        assert self.cas_mark(i, c, mark, ('DONE', lap, 0))
        self.finished[c][p] = self.finished[c].get(p, 0) + 1; yield
        if self.v != 'ackfirst': yield from self.settle(lane, p)

    def reap(self, lane, d):
        if self.v != 'nobury':
            for i in range(self.N):
                for c in range(len(self.kinds)):
                    mark = self.mark[i][c]; yield
                    if mark[0] == 'HELD' and mark[2][0] == d:
                        back = ('RETURNED', mark[1], mark[2][1] + 1) if c == 0 else ('DONE', mark[1], 0)
                        if self.cas_mark(i, c, mark, back) and c:
                            self.finished[c][mark[1] * self.N + i] = 1
                        yield
        if self.v != 'nosettle':
            last = max([p for p, _ in self.published] + list(self.void), default=-1)
            for p in range(max(0, last + 1 - self.N), last + 1): yield from self.settle(lane, p)
        named = {cell[2] for cell in self.cell if cell[1]}
        for g, word in enumerate(self.word):
            if word[1] != d or word[0] == 'FREE': continue
            while any(self.intent.get(l) and self.intent[l][1:] == (g, word[2]) for l in self.living if l != lane): yield
            named = {cell[2] for cell in self.cell if cell[1]}
            if self.word[g] == word:
                if word[0] == 'FLY' and g in named: self.word[g] = ('FLY', None, word[2])
                else: self.free(g)
        mine = self.intent.get(d)
        if mine and mine[0] == 'RECV' and self.word[mine[1]][0] == 'FLY' and self.word[mine[1]][2] == mine[2]:
            others = any(self.intent.get(l) == mine for l in self.living if l != lane)
            if mine[1] not in {cell[2] for cell in self.cell if cell[1]} and not others: self.free(mine[1])
        self.intent[d] = None
        yield

def run(seed, variant):
    rng = random.Random(seed); m = Model(rng, variant); m.living = set(); actors = {}; dead = []; lane = [0]
    def start(make):
        lane[0] += 1; m.living.add(lane[0]); actors[lane[0]] = make(lane[0])
    def publisher(l):
        for n in range(rng.randrange(3, 12)):
            for _ in range(60):
                if (yield from m.publish(l, (l, n))): break
                yield
    for _ in range(2): start(publisher)
    for c in range(len(m.kinds)):
        for _ in range(2): start(lambda l, c=c: m.member(l, c, rng.randrange(10, 60)))
    kills = rng.randrange(4); steps = 0; reapers = {}
    while actors or dead:
        for d in list(dead):
            if d not in reapers.values():
                lane[0] += 1; m.living.add(lane[0]); actors[lane[0]] = m.reap(lane[0], d); reapers[lane[0]] = d
        l = rng.choice(list(actors))
        for _ in range(rng.choice([1, 1, 3, 30])):
            steps += 1; assert steps < 200000, 'no end'
            if kills and rng.random() < 0.004:
                kills -= 1; m.living.discard(l); del actors[l]; dead.append(l); reapers.pop(l, None); break
            try: next(actors[l])
            except StopIteration:
                m.living.discard(l); del actors[l]
                if l in reapers: dead.remove(reapers.pop(l))
                break
    # At rest: drain all groups, and see that nothing is left.
    last = 10 ** 6; m.living = {last}
    for c in range(len(m.kinds)):
        for _ in m.member(last, c, 60): pass
        for _ in m.count_missed(c): pass
    for p, _ in m.published:
        for c, kind in enumerate(m.kinds):
            how = m.taken[c].get(p)
            assert how, f'group {c} never took {p}'
            assert kind == 'lag' or how == 'HELD', f'group {c} blocks and missed {p}'
            if how == 'HELD': assert m.finished[c].get(p) == 1 or c == 0 and m.finished[c].get(p), f'group {c} has lost {p}'
    for c in range(len(m.kinds)):
        skipped = sum(how == 'SKIPPED' for how in m.taken[c].values())
        assert m.missed[c] + m.bare[c] == skipped, f'group {c} was told of {m.missed[c] + m.bare[c]} of {skipped}'
    left = [g for g in range(m.G) if m.word[g][0] != 'FREE']
    assert not left, f'{left} are left: {m.cell}'
    return len(m.published), len(m.void), sum(how == 'SKIPPED' for t in m.taken for how in t.values())

if __name__ == '__main__':
    first, last = int(sys.argv[1]), int(sys.argv[2]); variant = sys.argv[3] if len(sys.argv) > 3 else None
    total = [0, 0, 0]
    for seed in range(first, last):
        try: total = [a + b for a, b in zip(total, run(seed, variant))]
        except AssertionError as e: print(f'seed {seed}: {e}'); sys.exit(1)
    print(f'{last - first} runs: {total[0]} messages, {total[1]} void positions, {total[2]} skipped')
