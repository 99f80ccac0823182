# Step-interleaving model of the partitions of a routed channel: they are entered, left, closed and made persistent one after the
# other, and are all of one life nevertheless (SC memory, every shared access = 1 step). The rules R1 to R5 stand at the head of
# src/attachment/routes.rs. What ends.py has is taken as given here: to enter one partition, to look who is left in it, and to
# take it down are one step each.
#
#   head       bitmap of users, and whether it is persistent; gone with its last user, unless it is
#   partition  flags (HADS, HADR, SGONE, RGONE, CLOSED, PERS), queued or not; bitmaps of senders, receivers, pins
#   open       head; partitions 0 to N-1 (refused at one: leave those that were entered, unite what is there, leave the head); the
#              head persistent, if asked for; head persistent: the partitions, too; look at all; unite them unless they are the same
#   unite      pin; CLOSED in one: CLOSED in all. GONE in one, and into others nobody of that kind has ever come: GONE there
#   leave      pin all partitions; leave the ends of each; unpin all; leave the head
#   reap       partitions of persistent heads: persistent. Then the ends and pins of the dead, partition by partition; then unite
#              what is there
# Adversary: scheduling in bursts; SIGKILL of openers, leavers, closers and reapers at any step.
# Checked: an end that somebody has entered is there until it leaves. Whenever everybody is at rest: all partitions are closed,
# or none; senders are gone from all, or none, and not where there are some; the same of receivers; all are persistent, or none.
# Who has opened a channel that was persistent has it persistent. At the end nothing is left but what is persistent, as a whole, or
# waits for its first receiver.
#
# usage: routes.py FIRST_SEED LAST_SEED [variant]
#   oneatatime  R5: who leaves has no pins but that of the partition that it leaves
#   earlyunpin  R5: who leaves unpins each partition when its ends have gone
#   nolook      R1: who has entered all partitions does not look
#   norefusal   R2: who is refused unites nothing
#   nobury      R3: a reaper unites nothing
#   noprefix    R4: who enters all partitions leaves persistence to whoever began it
#   latepersist R4: a reaper makes partitions persistent when the ends of the dead are gone
import random, sys
ABLATIONS = 'oneatatime earlyunpin nolook norefusal nobury noprefix latepersist'
HADS, HADR, SGONE, RGONE, CLOSED, PERS = 'HADS', 'HADR', 'SGONE', 'RGONE', 'CLOSED', 'PERS'
HAD = {'s': HADS, 'r': HADR}; GONE = {'s': SGONE, 'r': RGONE}

class Life:
    def __init__(self):
        self.flags = set(); self.ends = {'s': set(), 'r': set()}; self.pins = set(); self.queued = False

class Head:
    def __init__(self): self.users = set(); self.persistent = False

class Model:
    def __init__(self, rng, variant):
        self.rng = rng; self.v = variant or ''; self.n = rng.choice([2, 3])
        self.parts = [None] * self.n; self.head = None
        self.stats = dict.fromkeys('opened refused closed left killed reaped united rests'.split(), 0)

    # One step each, by the protocol of ends.py.
    def join(self, p, kinds, me):
        life = self.parts[p] = self.parts[p] or Life()
        for k in kinds:
            life.ends[k].add(me); life.flags.add(HAD[k]); life.flags.discard(GONE[k])
        return life

    def review(self, life):
        if PERS in life.flags: return
        for k in 'sr':
            if HAD[k] in life.flags and not life.ends[k]:
                life.flags.add(GONE[k])
                if k == 'r': life.queued = False

    def unpin(self, p, life, me):
        life.pins.discard(me)
        if self.parts[p] is not life or life.pins or life.ends['s'] or life.ends['r'] or PERS in life.flags: return
        if life.flags & {HADR, CLOSED} or not life.queued: self.parts[p] = None

    def leave_part(self, p, life, kinds, me):
        pinned = me in life.pins
        for k in kinds:
            life.pins.add(me)
            yield
            assert self.parts[p] is life and me in life.ends[k], 'an end has gone'
            life.ends[k].discard(me)
            yield
            self.review(life)
            if not pinned:
                yield
                self.unpin(p, life, me)

    def unite(self, pinned, me):
        if any(CLOSED in life.flags for _, life in pinned):
            for _, life in pinned:
                yield
                if CLOSED not in life.flags: life.flags.add(CLOSED); self.stats['united'] += 1
        for k in 'sr':
            yield
            if not any(GONE[k] in life.flags for _, life in pinned): continue
            for _, life in pinned:
                yield
                if not life.flags & {PERS, HAD[k]}:
                    life.flags |= {HAD[k], GONE[k]}; self.stats['united'] += 1
                    if k == 'r': life.queued = False
        for p, life in pinned:
            yield
            self.review(life)
            yield
            self.unpin(p, life, me)

    def pin_those_there(self, me):
        pinned = []
        for p in range(self.n):
            yield
            if self.parts[p]: self.parts[p].pins.add(me); pinned.append((p, self.parts[p]))
        return pinned

    def unite_those_there(self, me):
        yield from self.unite((yield from self.pin_those_there(me)), me)

    def persist(self, life):
        life.flags.add(PERS); life.flags -= {SGONE, RGONE}

    def is_of_one_life(self, seen):
        closed = [CLOSED in flags for flags in seen]
        return all(closed) == any(closed) and all(
            not any(GONE[k] in flags for flags in seen) or all(flags & {HAD[k], PERS} for flags in seen) for k in 'sr')

    def leave_head(self, me):
        yield
        self.head.users.discard(me)
        if not self.head.users and not self.head.persistent: self.head = None

    def open(self, me, kinds):
        """The lives that were entered; None if that was refused."""
        yield
        self.head = self.head or Head(); self.head.users.add(me)
        was = self.head.persistent; lives = []; refused = self.rng.randrange(self.n) if self.rng.random() < 0.2 else None
        for p in range(self.n):
            yield
            if p == refused:
                self.stats['refused'] += 1
                for q, life in enumerate(lives): yield from self.leave_part(q, life, kinds, me)
                if self.v != 'norefusal': yield from self.unite_those_there(me)
                yield from self.leave_head(me)
                return None
            lives.append(self.join(p, kinds, me))
        mine = self.rng.random() < 0.15
        if mine:
            yield
            self.head.persistent = True
        yield
        if self.head.persistent and (mine or self.v != 'noprefix'):
            for life in lives:
                yield
                self.persist(life)
        seen = []
        for life in lives:
            yield
            seen.append(set(life.flags))
        if self.v != 'nolook' and not self.is_of_one_life(seen):
            for life in lives:
                yield
                life.pins.add(me)
            yield from self.unite(list(enumerate(lives)), me)
        assert not (was or mine) or all(PERS in life.flags for life in lives), 'opened, and not persistent'
        self.stats['opened'] += 1
        return lives

    def leave(self, me, lives, kinds):
        pins = self.v not in ('oneatatime', 'earlyunpin')
        if self.v != 'oneatatime':
            for life in lives:
                yield
                life.pins.add(me)
        for p, life in enumerate(lives):
            yield from self.leave_part(p, life, kinds, me)
            if self.v == 'earlyunpin':
                yield
                self.unpin(p, life, me)
        if pins:
            for p, life in enumerate(lives):
                yield
                self.review(life)
                yield
                self.unpin(p, life, me)

    def work(self, me):
        kinds = self.rng.choice(['s', 'r', 'r', 'sr'])
        lives = yield from self.open(me, kinds)
        if lives is None: return
        for _ in range(self.rng.randrange(3)):
            if 'r' in kinds and self.rng.random() < 0.4:
                for life in lives:
                    yield
                    life.flags.add(CLOSED)
                self.stats['closed'] += 1
            elif 's' in kinds:
                life = self.rng.choice(lives)
                yield
                if not life.flags & {RGONE, CLOSED}: life.queued = True
        while self.rng.random() < 0.5: yield 'rest'
        for k in self.rng.sample(kinds, len(kinds)): yield from self.leave(me, lives, k)
        yield from self.leave_head(me)
        self.stats['left'] += 1

    def persist_those_there(self, me):
        yield
        if not self.head or not self.head.persistent: return
        pinned = yield from self.pin_those_there(me)
        for p, life in pinned:
            yield
            self.persist(life)
            yield
            self.unpin(p, life, me)

    def reap(self, me, dead):
        if self.v != 'latepersist': yield from self.persist_those_there(me)
        places = list(range(self.n + 1)); self.rng.shuffle(places)
        for p in places:
            yield
            if p == self.n:
                if self.head and dead in self.head.users: yield from self.leave_head(dead)
                continue
            life = self.parts[p]
            if not life: continue
            life.pins.add(me)
            for k in 'sr':
                yield
                life.ends[k].discard(dead)
            yield
            life.pins.discard(dead)
            self.review(life)
            yield
            self.unpin(p, life, me)
        if self.v == 'latepersist': yield from self.persist_those_there(me)
        yield
        if self.head and self.v != 'nobury': yield from self.unite_those_there(me)
        self.stats['reaped'] += 1

    def check(self, staying):
        """Everybody is at rest; `staying` have entered all partitions."""
        self.stats['rests'] += 1
        if not staying: return
        assert all(self.parts), 'a partition has gone'
        for flag in (CLOSED, PERS, SGONE, RGONE):
            has = [flag in life.flags for life in self.parts]
            assert all(has) == any(has), ('half', flag)
        for k in 'sr':
            assert not any(life.ends[k] and GONE[k] in life.flags for life in self.parts), 'gone, and there'

def run(seed, variant=None):
    rng = random.Random(seed); m = Model(rng, variant)
    names = iter(range(1000)); lanes = {}; dead = {}; resting = set(); steps = 0
    more = rng.randrange(2, 7); killing = rng.random() < 0.6; coarse = rng.choice([1, 4, 30])
    while more or lanes:
        while more and len(lanes) < 3: more -= 1; me = next(names); lanes[me] = m.work(me)
        awake = [me for me in lanes if me not in resting]
        if not awake:
            m.check(sorted(resting))
            resting.discard(rng.choice(sorted(resting)))
            continue
        me = rng.choice(awake)
        for _ in range(rng.randrange(1, coarse + 1)):
            steps += 1; assert steps < 20000, 'livelock?'
            if killing and rng.random() < 0.01:
                m.stats['killed'] += 1
                lanes.pop(me).close()
                for name in [me] + ([dead.pop(me)] if me in dead else []):
                    reaper = next(names); lanes[reaper] = m.reap(reaper, name); dead[reaper] = name
                break
            try: said = next(lanes[me])
            except StopIteration: del lanes[me]; dead.pop(me, None); break
            if said == 'rest': resting.add(me); break
    m.check([])
    assert not (m.head and m.head.persistent) or all(life and PERS in life.flags for life in m.parts), 'not persistent'
    for life in m.parts:
        if not life: continue
        assert not (life.pins or life.ends['s'] or life.ends['r']), 'left behind'
        assert PERS in life.flags or life.queued and HADR not in life.flags, 'left over'
    return m.stats

if __name__ == '__main__':
    first, last = int(sys.argv[1]), int(sys.argv[2]); variant = sys.argv[3] if len(sys.argv) > 3 else None
    total = {}
    for seed in range(first, last):
        try:
            for key, value in run(seed, variant).items(): total[key] = total.get(key, 0) + value
        except AssertionError as e: print(f'seed {seed}: {e}'); sys.exit(1)
    print(f'{last - first} runs: {total}')
