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
#   look      a member's position p is its process's: at a cell that is not filled for p it looks at the hint, then at the cell again.
#             A cell that is laps ahead was filled last for a position q (an empty one: a lap before): p goes on to q - N + 1
#   join      one more column, for groups that come and go: reserve it for the group (CAS of the column), name it (CAS of the group's
#             entry), prepare its marks and its word `joined` (CAS each, from what another epoch has left), make it ACTIVE; then whoever
#             asks says where the end is (CAS of `joined`). All members do all of it, from wherever others stand
#   leave     the last member: column LEAVING; marks RETURNED become DONE; each position is settled; FREE, if no mark pins
#   nack      CAS mark to RETURNED, then look whether the group is there still; if not, to DONE, and settle
#   reaper    of d: marks HELD by d become RETURNED (at least once) or DONE; then each position is settled; then words:
#             ring.py is the model of that, here it is one step, which waits while a living intent names the block; then its ends go
# Adversary: scheduling in bursts; lanes that stand still for long at any step; SIGKILL of publishers, members and reapers at any step;
# members that hold messages for long.
# Checked: nobody reads a payload that was freed; a group takes positions in order; every message is received or missed once
# by each group (at least once: received last by one who lived); a group that blocks misses none; a publisher that is refused has
# skipped nothing that it did not need; nobody writes beside a column of a later group; at the end no block is left, and no column.
#
# usage: log.py FIRST_SEED LAST_SEED [variant]
#   nolook      who closes or retires does not look at the marks
#   giveup      a member whose message was closed meanwhile gives it up
#   ackfirst    a member looks whether it is the last before it writes its mark
#   nosettle    the reaper settles nothing
#   nobury      the reaper leaves the marks of the dead
#   keepopen    a position that will be void closes nothing
#   bare        a skipped message is counted in a word of its own, after the mark
#   stalecell   a member does not look at the cell again after the hint
#   farjump     a member takes an empty cell for one that was filled in its lap
#   skipfirst   a publisher skips for those who lag before it looks who blocks
#   lastlook    who gives a message back does not look at the group after that
#   earlyend    a group is taken down while somebody who joins it has an end, and stands still
#   anyepoch    a publisher changes marks of another epoch than it saw
import random, sys
ABLATIONS = 'nolook giveup ackfirst nosettle nobury keepopen bare stalecell farjump skipfirst lastlook earlyend anyepoch'

class Killed(Exception): pass

class Model:
    def __init__(self, rng, variant):
        self.rng, self.v = rng, variant
        self.cap = rng.choice([1, 2]); self.N = 2 * self.cap * rng.choice([1, 2]); self.G = 14
        self.kinds = ['block', 'lag', rng.choice(['lag', 'block']), rng.choice(['lag', 'block'])]
        # The last one is for groups that come and go: column = (phase, entry, epoch, stamp). The others are there from the beginning.
        self.cols = [('ACTIVE', None, 0, 0)] * 3 + [('FREE', None, 0, 0)]
        self.joined = [0, 0, 0, ('known', 0, 0)]; self.value = {}; self.ends = {}; self.entry_of = {}; self.began = {}
        self.hint = 0; self.private = {}; self.skips = {}
        self.cell = [(0, 0, None)] * self.N
        self.mark = [[('FRESH', 0, 0, 0)] * len(self.kinds) for _ in range(self.N)]
        self.word = [('FREE', None, 0)] * self.G; self.pay = [None] * self.G
        self.intent = {}; self.published = []; self.taken = {(c, 0): {} for c in range(3)}
        self.finished = [dict() for _ in self.kinds]; self.missed = [0] * len(self.kinds); self.bare = [0] * len(self.kinds)
        self.void = set()

    def at(self, p): return p % self.N, p // self.N
    def has_taken(self, mark, lap, e=0): return mark[3] == e and mark[0] != 'FRESH' and mark[1] >= lap
    def pins(self, mark, e=0): return mark[3] == e and mark[0] in ('HELD', 'RETURNED')

    # (column, kind, epoch) of the groups whose column is in one of the phases.
    def groups(self, *phases):
        for c, kind in enumerate(self.kinds):
            col = self.cols[c]
            if col[0] in phases: yield c, kind, col

    # Whether the position concerns the group: asked by who has seen it ACTIVE.
    def concerns(self, c, col, p):
        if c < 3: return True
        yield from self.say_joined(col[2])
        word = self.joined[3]
        return word[0] == 'known' and word[1] == col[2] and p >= word[2]

    def say_joined(self, epoch):
        word = self.joined[3]; yield
        if word == ('unknown', epoch, 0):
            end = max([p for p, _ in self.published] + list(self.void), default=-1) + 1; yield
            if self.joined[3] == word: self.joined[3] = ('known', epoch, end); self.began[epoch] = end
            yield

    def cas(self, i, a, b):
        if self.cell[i] != a: return False
        self.cell[i] = b; return True

    def cas_mark(self, i, c, a, b):
        if self.mark[i][c] != a: return False
        assert b[3] == self.cols[c][2], f'a mark of epoch {b[3]} in a column of {self.cols[c]}'
        self.mark[i][c] = b
        if b[0] in ('HELD', 'SKIPPED') and not self.pins(a, b[3]):
            p = b[1] * self.N + i; taken = self.taken[c, b[3]]
            assert p not in taken, f'{p} is taken twice by group {c}'
            before = [q for q, _ in self.published if q < p and q not in taken and (c < 3 or q >= self.began[b[3]])]
            assert not before, f'group {c} takes {p} before {before}'
            taken[p] = b[0]
        return True

    def free(self, g):
        assert not any(self.pins(self.mark[i][c], self.cols[c][2]) for i in range(self.N) for c in range(len(self.kinds))
                       if self.cell[i][2] == g and self.cell[i][1]), f'{g} is freed while it is named'
        self.word[g] = ('FREE', None, self.word[g][2] + 1); self.pay[g] = 'dead'

    def retire(self, lane, i):
        while True:
            cell = self.cell[i]; yield
            if cell[1] != 3: return
            if self.v != 'nolook':
                for c in range(len(self.kinds)):
                    col = self.cols[c]; yield
                    pinned = col[0] in ('ACTIVE', 'LEAVING') and self.pins(self.mark[i][c], col[2]); yield
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
                col = self.cols[c]; yield
                if col[0] not in ('ACTIVE', 'LEAVING'): continue
                mark = self.mark[i][c]; yield
                if self.pins(mark, col[2]): return
                if self.has_taken(mark, lap, col[2]) or col[0] == 'LEAVING': continue
                if c < 3 or (yield from self.concerns(c, col, p)): return
            self.cas(i, cell, (lap, 3, cell[2])); yield
        yield from self.retire(lane, i)

    # Whether no group that blocks keeps the message of p where it is.
    def unkept(self, p):
        if p < 0: return True
        i, lap = self.at(p)
        cell = self.cell[i]; yield
        if cell[:2] != (lap, 1): return True
        for c, kind, col in list(self.groups('ACTIVE')):
            yield
            if kind != 'block': continue
            mark = self.mark[i][c]; yield
            if mark[3] != col[2] or self.has_taken(mark, lap, col[2]): continue
            if c < 3 or (yield from self.concerns(c, col, p)): return False
        return True

    # Whether there is room, if that were made: beyond positions whose cells are held, too.
    def may_publish(self, p):
        for _ in range(self.N):
            i, lap = self.at(p); cell = self.cell[i]; yield
            if cell[0] > lap or cell[:2] in ((lap, 1), (lap, 3)): p += 1; continue
            if not (yield from self.unkept(p - self.cap)): return False
            held = False
            for c, _, col in list(self.groups('ACTIVE', 'LEAVING')): held |= self.pins(self.mark[i][c], col[2]); yield
            if cell[1] != 3 or not held: return True
            p += 1
        return False

    def room(self, lane, p):
        if p < 0: return True
        i, lap = self.at(p)
        cell = self.cell[i]; yield
        if cell[:2] != (lap, 1): return True
        if self.v != 'skipfirst' and not (yield from self.unkept(p)): return False
        for c, kind, col in list(self.groups('ACTIVE')):
            yield
            if c == 3 and not (yield from self.concerns(c, col, p)): continue
            # A publisher stands still.
            for _ in range(self.rng.choice([0, 0, 0, 400])): yield
            while True:
                mark = self.mark[i][c]; yield
                if kind == 'block': break
                if mark[3] != col[2] and self.v != 'anyepoch': break
                if self.has_taken(mark, lap, col[2]): break
                n = mark[2] + 1 if mark[0] == 'SKIPPED' else 1
                if self.v == 'bare':
                    if self.cas_mark(i, c, mark, ('SKIPPED', lap, 0, col[2])): yield; self.bare[c] += 1
                elif self.cas_mark(i, c, mark, ('SKIPPED', lap, n, col[2])): self.skips.setdefault(lane, []).append(p)
                yield
        if self.v == 'skipfirst' and not (yield from self.unkept(p)): return False
        self.cas(i, cell, (lap, 3, cell[2])); yield
        yield from self.retire(lane, i)
        return True

    # A publisher gives up: what it has skipped was in the way of what was published.
    def refused(self, lane):
        last = max([p for p, _ in self.published] + list(self.void), default=-1)
        for p in self.skips.pop(lane, []): assert p + self.cap <= last, f'{p} was skipped for nothing'
        return False

    def publish(self, lane, number, tries=40):
        p = 0; g = None; self.skips[lane] = []
        if self.v != 'skipfirst' and not (yield from self.may_publish(0)): return self.refused(lane)
        for _ in range(tries):
            i, lap = self.at(p); cell = self.cell[i]; yield
            if cell[0] > lap or cell[:2] in ((lap, 1), (lap, 3)): p += 1; continue
            if cell[:2] == (lap - 1, 1): return self.refused(lane)
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
                if not found: return False  # What was skipped is room for the next one.
                g = found[0]; self.word[g] = ('ALO', lane, self.word[g][2]); yield
                self.pay[g] = number; yield
            gen = self.word[g][2]
            self.intent[lane] = ('SEND', g, gen); yield
            self.word[g] = ('FLY', lane, gen); yield
            if self.cas(i, cell, (lap, 1, g)):
                self.published.append((p, number)); yield
                self.hint = max(self.hint, p + 1); yield
                self.intent[lane] = None; yield
                return True
            yield
            self.word[g] = ('ALO', lane, gen); yield
            self.intent[lane] = None; yield
        if g is not None: self.free(g); yield
        return self.refused(lane)

    def count_missed(self, c, e=0):
        n = 0
        for i in range(self.N):
            while True:
                mark = self.mark[i][c]; yield
                if mark[0] != 'SKIPPED' or mark[3] != e: break
                if self.cas_mark(i, c, mark, ('DONE', mark[1], 0, e)):
                    # Told at once: whoever is killed after this has been told.
                    self.missed[c] += mark[2]; yield; break
                yield

    def receive(self, lane, c, e=0):
        if c == 0 or e:
            for i in range(self.N):
                mark = self.mark[i][c]; yield
                if mark[0] == 'RETURNED' and mark[3] == e and \
                        self.cas_mark(i, c, mark, ('HELD', mark[1], (lane, mark[2]), e)):
                    return mark[1] * self.N + i, self.cell[i][2]
        p = max(self.private.get((c, e), 0), self.began.get(e, 0) if e else 0)
        for _ in range(200):
            self.private[c, e] = p
            i, lap = self.at(p); cell = self.cell[i]; yield
            if cell[0] < lap or cell[:2] == (lap, 0):
                hint = self.hint; yield
                if hint <= p: return None
                if self.v == 'stalecell': p = max(hint - self.N, p + 1); continue
                cell = self.cell[i]; yield
                assert cell[0] >= lap and cell[:2] != (lap, 0), f'{p} is before the hint, and not filled'
            mark = self.mark[i][c]; yield
            if mark[0] == 'SKIPPED' and mark[3] == e: yield from self.count_missed(c, e); continue
            if cell[:2] == (lap, 1) and not self.has_taken(mark, lap, e):
                held = ('HELD', lap, (lane, 0), e)
                if not self.cas_mark(i, c, mark, held): yield; continue
                yield
                if self.cell[i] != cell and self.v == 'giveup':
                    self.cas_mark(i, c, held, ('DONE', lap, 0, e)); yield
                    yield from self.retire(lane, i)
                    continue
                self.private[c, e] = p + 1
                return p, cell[2]
            last = (cell[0] - (cell[1] == 0 and self.v != 'farjump')) * self.N + i
            p = max(p + 1, last - self.N + 1)
        return None

    def read(self, c, p, g):
        number = dict(self.published)[p]
        assert g is not None, f'group {c} holds {p}, which is gone'
        for _ in range(self.rng.choice([0, 2, 40, 400])):
            assert self.pay[g] == number, f'group {c} reads {self.pay[g]} at {p}'
            yield

    def member(self, lane, c, rounds):
        for _ in range(rounds):
            got = yield from self.receive(lane, c)
            if got is None: yield; continue
            p, g = got
            yield from self.read(c, p, g)
            yield from self.done(lane, c, p)

    def done(self, lane, c, p, e=0):
        i, lap = self.at(p)
        if self.v == 'ackfirst': yield from self.settle(lane, p)
        mark = self.mark[i][c]; yield
        assert mark[0] == 'HELD' and mark[1] == lap and mark[2][0] == lane and mark[3] == e
        assert self.cas_mark(i, c, mark, ('DONE', lap, 0, e))
        if not e: self.finished[c][p] = self.finished[c].get(p, 0) + 1
        yield
        if self.v != 'ackfirst': yield from self.settle(lane, p)
        if e: yield from self.free_column(e)

    def nack(self, lane, p, e):
        i, lap = self.at(p); mark = self.mark[i][3]; yield
        back = self.cols[3][0] == 'ACTIVE' and self.cols[3][2] == e
        for _ in range(self.rng.choice([1, 60])): yield
        to = ('RETURNED', lap, mark[2][1] + 1, e) if back else ('DONE', lap, 0, e)
        assert self.cas_mark(i, 3, mark, to); yield
        if back and self.v != 'lastlook':
            back = self.cols[3][0] == 'ACTIVE' and self.cols[3][2] == e; yield
            if not back: self.cas_mark(i, 3, to, ('DONE', lap, 0, e)); yield
        if not back:
            yield from self.settle(lane, p)
            yield from self.free_column(e)

    # A member of the group of an entry that comes and goes. Its bit is set before, and cleared after what it does.
    def guest(self, lane, entry, rounds):
        e = None
        while e is None:
            named = self.value.get(entry); yield
            if named: e = named; break
            col = self.cols[3]; yield
            if col[0] == 'FREE':
                new = ('JOINING', entry, col[2] + 1, col[3] + 1)
                if self.cols[3] == col: self.cols[3] = new
                yield
                continue
            if col[:2] == ('JOINING', entry):
                if not self.value.get(entry): self.value[entry] = col[2]
                yield
                continue
            return (yield from self.part(lane, entry))
        yield from self.join(e)
        for _ in range(rounds):
            got = yield from self.receive(lane, 3, e)
            if got is None: yield; continue
            p, g = got
            yield from self.read(3, p, g)
            if self.rng.random() < 0.3: yield from self.nack(lane, p, e)
            else: yield from self.done(lane, 3, p, e)
        if self.rng.random() < 0.5: return (yield from self.part(lane, entry))
        # A message that outlives its member.
        got = yield from self.receive(lane, 3, e)
        yield from self.part(lane, entry)
        if got:
            yield from self.read(3, *got)
            if self.rng.random() < 0.8: yield from self.nack(lane, got[0], e)
            else: yield from self.done(lane, 3, got[0], e)

    def join(self, e):
        col = self.cols[3]; yield
        if col[2] == e and col[0] == 'JOINING':
            for i in range(self.N):
                while True:
                    mark = self.mark[i][3]; yield
                    if mark[3] == e: break
                    self.cas_mark(i, 3, mark, ('FRESH', 0, 0, e)); yield
            word = self.joined[3]; yield
            if word[1] != e and self.joined[3] == word: self.joined[3] = ('unknown', e, 0)
            yield
            self.taken.setdefault((3, e), {})
            if self.cols[3] == col: self.cols[3] = ('ACTIVE',) + col[1:]
            yield
        yield from self.say_joined(e)

    # An end goes; with the last one the group does, and its entry is free for another.
    def part(self, lane, entry):
        self.ends.get(entry, set()).discard(lane); yield
        if self.ends.get(entry, 1) and self.v != 'earlyend' or self.entry_of.get(entry, 1) is not None: return
        self.entry_of[entry] = lane
        yield from self.take_down(lane, entry)

    def take_down(self, lane, entry):
        col = self.cols[3]; yield
        if col[1] == entry and col[0] in ('JOINING', 'ACTIVE'):
            self.cols[3] = ('LEAVING',) + col[1:]; yield
            for i in range(self.N):
                mark = self.mark[i][3]; yield
                if mark[0] == 'RETURNED' and mark[3] == col[2]: self.cas_mark(i, 3, mark, ('DONE', mark[1], 0, col[2]))
                yield
            last = max([p for p, _ in self.published] + list(self.void), default=-1)
            for p in range(max(0, last + 1 - self.N), last + 1): yield from self.settle(lane, p)
            yield from self.free_column(col[2])
        self.value.pop(entry, None); self.ends.pop(entry, None); self.entry_of.pop(entry, None); yield

    def free_column(self, e):
        col = self.cols[3]; yield
        if col[0] != 'LEAVING' or col[2] != e: return
        for i in range(self.N):
            pinned = self.pins(self.mark[i][3], e); yield
            if pinned: return
        if self.cols[3] == col: self.cols[3] = ('FREE', None) + col[2:]
        yield

    def reap(self, lane, d):
        if self.v != 'nobury':
            for i in range(self.N):
                for c in range(len(self.kinds)):
                    mark = self.mark[i][c]; yield
                    if mark[0] == 'HELD' and mark[2][0] == d:
                        e = mark[3]; active = self.cols[c][0] == 'ACTIVE'; yield
                        back = ('RETURNED', mark[1], mark[2][1] + 1, e) if c in (0, 3) and active else ('DONE', mark[1], 0, e)
                        if self.cas_mark(i, c, mark, back) and c in (1, 2):
                            self.finished[c][mark[1] * self.N + i] = 1
                        yield
                        if c == 3 and active and self.v != 'lastlook':
                            active = self.cols[c][0] == 'ACTIVE' and self.cols[c][2] == e; yield
                            if not active: self.cas_mark(i, c, back, ('DONE', mark[1], 0, e)); yield
        if self.v != 'nosettle':
            last = max([p for p, _ in self.published] + list(self.void), default=-1)
            for p in range(max(0, last + 1 - self.N), last + 1): yield from self.settle(lane, p)
        yield from self.free_column(self.cols[3][2])
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
        # Its ends last; and what it was taking down.
        for entry in [entry for entry, ends in list(self.ends.items()) if d in ends]:
            self.ends[entry].add(lane); self.ends[entry].discard(d); yield
            yield from self.part(lane, entry)
        for entry in [entry for entry, ends in list(self.ends.items()) if not ends]:
            # Not one that somebody else has taken down since.
            if not self.ends.get(entry, 1) and self.entry_of[entry] in (None, d):
                self.entry_of[entry] = lane
                yield from self.take_down(lane, entry)

def run(seed, variant):
    rng = random.Random(seed); m = Model(rng, variant); m.living = set(); actors = {}; dead = []; lane = [0]
    def start(make):
        lane[0] += 1; m.living.add(lane[0]); actors[lane[0]] = make(lane[0])
    def publisher(l):
        for n in range(rng.randrange(3, 24)):
            for _ in range(60):
                if (yield from m.publish(l, (l, n))): break
                yield
    for _ in range(2): start(publisher)
    for c in range(3):
        for _ in range(2): start(lambda l, c=c: m.member(l, c, rng.randrange(10, 60)))
    kills = rng.randrange(4); steps = 0; reapers = {}; guests = rng.randrange(9); still = {}
    while actors or dead:
        for d in list(dead):
            if d not in reapers.values():
                lane[0] += 1; m.living.add(lane[0]); actors[lane[0]] = m.reap(lane[0], d); reapers[lane[0]] = d
        if guests and (not actors or rng.random() < 0.02):
            guests -= 1
            entry = rng.randrange(2)
            # Not one that is being taken down.
            if m.entry_of.get(entry) is None and m.ends.get(entry, 1):
                m.entry_of[entry] = None
                for _ in range(rng.choice([1, 2, 2])):
                    m.ends.setdefault(entry, set()).add(lane[0] + 1)
                    start(lambda l: m.guest(l, entry, rng.randrange(6)))
        if not actors: continue
        l = rng.choice(list(actors))
        if still.get(l, 0) > steps and len(actors) > len([x for x in actors if still.get(x, 0) > steps]): steps += 1; continue
        if rng.random() < 0.01: still[l] = steps + rng.choice([100, 2000])
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
    for _ in m.may_publish(0): pass
    assert m.cols[3][0] == 'FREE', f'{m.cols[3]} is left'
    for c in range(3):
        for _ in m.member(last, c, 60): pass
        for _ in m.count_missed(c): pass
    for p, _ in m.published:
        for c, kind in enumerate(m.kinds[:3]):
            how = m.taken[c, 0].get(p)
            assert how, f'group {c} never took {p}'
            assert kind == 'lag' or how == 'HELD', f'group {c} blocks and missed {p}'
            if how == 'HELD': assert m.finished[c].get(p) == 1 or c == 0 and m.finished[c].get(p), f'group {c} has lost {p}'
    for c in range(3):
        skipped = sum(how == 'SKIPPED' for how in m.taken[c, 0].values())
        assert m.missed[c] + m.bare[c] == skipped, f'group {c} was told of {m.missed[c] + m.bare[c]} of {skipped}'
    left = [g for g in range(m.G) if m.word[g][0] != 'FREE']
    assert not left, f'{left} are left: {m.cell}'
    return len(m.published), len(m.void), sum(how == 'SKIPPED' for t in m.taken.values() for how in t.values()), len(m.began)

if __name__ == '__main__':
    first, last = int(sys.argv[1]), int(sys.argv[2]); variant = sys.argv[3] if len(sys.argv) > 3 else None
    total = [0, 0, 0, 0]
    for seed in range(first, last):
        try: total = [a + b for a, b in zip(total, run(seed, variant))]
        except AssertionError as e: print(f'seed {seed}: {e}'); sys.exit(1)
    print(f'{last - first} runs: {total[0]} messages, {total[1]} void positions, {total[2]} skipped, {total[3]} groups joined')
