# Step-interleaving model of a client's slate: streams of responses, one slot for one call after the other, servers that are stopped
# or killed (SC memory, every shared access = 1 step).
#
#   word  = (tag, mark)            count = (tag, used, waits)            block[tag]: whether the request is there
#   begin     count=(tag,0,0); word=(tag,WANTED); the request is sent
#   serve     take a request; CAS word WANTED -> TAKEN (or free the request). For each part: W unused? then wait. Is it wanted?
#             Put the part into the client's channel; wake the client. At the end: CAS word TAKEN -> ENDED; free; wake the client
#   wait      take a place; wanted? CAS count: waits (if it names this call); fewer than W unused? else sleep, and look again.
#             Afterwards CAS count: waits no more (if it names this call)
#   use       the client takes a part: CAS count: used+1. If the server waited, and at each W/2: CAS count: waits no more; wake servers
#   end       nothing in the channel: take a place; look again; is the block gone? then look once more, and at the word
#   give up   word=(tag,OVER); wake servers
#   reaper    frees what a dead server had; wakes the client
# Adversary: scheduling in bursts; the client gives up at any step; SIGKILL of servers at any step; SIGSTOP of servers at any step,
# until nothing else can run or for a while.
# Checked: when nothing can run, and nobody is stopped, every call is over; parts come in order, and all of them if the server has
# ended; never more than W are unused.
#
# usage: slate.py FIRST_SEED LAST_SEED [variant]
#   notag       count without a tag: who waits no more clears what the slot's next call has
#   latelook    a server looks whether it must wait before it takes its place
#   lateclear   the client wakes servers before it says that nobody waits
#   wordfirst   a call begins with the word, and the count comes after it
#   quiet       a client that gives up tells nobody
#   earlynudge  a server wakes the client before it frees the request
#   onelook     no look into the channel after the block is gone
#   noreaper    a reaper wakes nobody
import random, sys
ABLATIONS = 'notag latelook lateclear wordfirst quiet earlynudge onelook noreaper'

W, PARTS = 4, 11

class Asleep: pass

class Model:
    def __init__(self, rng, variant):
        self.rng, self.v = rng, variant
        self.word, self.count, self.block = (0, None), (0, 0, False), {}
        self.requests, self.channel = [], []
        self.rung = {}                              # who has a place, and whether it was woken there
        self.over, self.calls, self.has = 0, rng.choice([2, 3, 4]), {}
        self.stats = dict.fromkeys('parts ended given_up lost waits'.split(), 0)

    def ring(self, who):
        for place in self.rung:
            if place[0] == who: self.rung[place] = True

    def change(self, tag, change):                  # CAS from a count that names the call
        if self.v != 'notag' and self.count[0] != tag: return None
        before = self.count
        self.count = (before[0],) + change(before[1], before[2])
        return before

    def unused(self, tag, sent, count):
        return sent - count[1] if count and (count[0] == tag or self.v == 'notag') else 0

    def sleep(self, place):
        while not self.rung[place]: yield Asleep
        del self.rung[place]

    # ---- The client ----
    def client(self):
        for tag in range(1, self.calls + 1):
            if self.v == 'wordfirst':
                self.word = (tag, 'WANTED'); yield
                self.requests.append(tag); self.block[tag] = True; yield
                for _ in range(self.rng.choice([0, 20])): yield
                self.count = (tag, 0, False); yield
            else:
                self.count = (tag, 0, False); yield
                self.word = (tag, 'WANTED'); yield
                self.requests.append(tag); self.block[tag] = True; yield
            self.ring('server')
            patience = self.rng.choice([10 ** 9, self.rng.randrange(60)])
            got, end = 0, None
            while end is None and patience > 0:
                patience -= 1
                part = self.take(tag, got); yield
                if part is not None:
                    got += 1
                    before = self.change(tag, lambda used, waits: (used + 1, waits)); yield
                    assert before, 'a client finds another call'
                    if before[2] and (before[1] + 1) % (W // 2) == 0:
                        if self.v == 'lateclear': self.ring('server'); yield
                        self.change(tag, lambda used, waits: (used, False)); yield
                        if self.v != 'lateclear': self.ring('server'); yield
                    continue
                self.rung[('client', tag)] = False; yield
                something = bool(self.channel); yield
                if something: del self.rung[('client', tag)]; continue
                gone = not self.block[tag]; yield
                if gone:
                    del self.rung[('client', tag)]
                    if self.v != 'onelook' and self.channel: continue
                    end = self.word; yield
                    break
                yield from self.sleep(('client', tag))
            if end is None:
                self.stats['given_up'] += 1
                self.word = (tag, 'OVER'); yield
                if self.v != 'quiet': self.ring('server')
                yield
            elif end == (tag, 'ENDED'):
                assert got == PARTS, f'{got} parts came of a stream that has ended'
                self.stats['ended'] += 1
            else: self.stats['lost'] += 1
            self.over = tag

    def take(self, tag, expected):
        while self.channel:
            of, number = self.channel.pop(0)
            if of != tag: continue                  # nobody wants it any more
            assert number == expected, f'part {number} came, and {expected} was to come'
            self.stats['parts'] += 1
            return number

    # ---- A server ----
    def server(self, me):
        while True:
            while not self.requests:
                self.rung[('server', me)] = False; yield
                if self.requests: del self.rung[('server', me)]; break
                yield from self.sleep(('server', me))
            if not self.requests: continue
            tag = self.requests.pop(0); self.has[me] = tag; yield
            if self.word == (tag, 'WANTED'):
                self.word = (tag, 'TAKEN'); yield
                yield from self.stream(me, tag)
            else: yield
            ended = self.word == (tag, 'TAKEN')
            if ended: self.word = (tag, 'ENDED')
            yield
            if self.v == 'earlynudge':
                if ended: self.ring('client')
                yield
            self.block[tag] = False; del self.has[me]; yield
            if self.v != 'earlynudge' and ended: self.ring('client')
            yield

    def stream(self, me, tag):
        for sent in range(PARTS):
            count = self.count; yield
            if self.unused(tag, sent, count) >= W:
                self.stats['waits'] += 1
                yield from self.wait(me, tag, sent)
                self.change(tag, lambda used, waits: (used, False)); yield
            if self.word != (tag, 'TAKEN'): return
            yield
            self.channel.append((tag, sent))
            if self.count[0] == tag:
                assert sent + 1 - self.count[1] <= W, 'more are unused than may be'
            yield
            self.ring('client'); yield

    def wait(self, me, tag, sent):
        place = ('server', me)
        while True:
            if self.v != 'latelook': self.rung[place] = False; yield
            wanted = self.word == (tag, 'TAKEN'); yield
            before = self.change(tag, lambda used, waits: (used, True)) if wanted else None; yield
            if self.v == 'latelook': self.rung[place] = False; yield
            if not wanted or self.unused(tag, sent, before) < W:
                del self.rung[place]
                return
            yield from self.sleep(place)

    def reap(self, dead):
        yield
        tag = self.has.pop(dead, None)
        if tag is not None: self.block[tag] = False
        yield
        if self.v != 'noreaper': self.ring('client')

def run(seed, variant):
    rng = random.Random(seed); m = Model(rng, variant)
    actors = {'client': m.client()}; stopped = {}; kills, stops = rng.randrange(3), rng.randrange(4); names = 0; steps = 0
    at_rest = False
    while m.over < m.calls or not at_rest:
        servers = [a for a in actors if a.startswith('server')]
        while len(servers) < 2:
            names += 1; name = f'server{names}'; servers.append(name); actors[name] = m.server(name)
        steps += 1; assert steps < 100000, 'no end'
        ready = [a for a in actors if a not in stopped]
        rng.shuffle(ready)
        moved = False
        for a in ready:
            for _ in range(rng.choice([1, 1, 2, 30])):
                if a.startswith('server') and rng.random() < 0.01:
                    if kills:
                        kills -= 1; del actors[a]; stopped.pop(a, None)
                        m.rung = {p: w for p, w in m.rung.items() if p[1] != a}
                        actors['reaper of ' + a] = m.reap(a); moved = True
                        break
                if a.startswith('server') and rng.random() < 0.05 and stops:
                    stops -= 1; stopped[a] = rng.choice([3, 30, 10 ** 9]); moved = True
                    break
                try: step = next(actors[a])
                except StopIteration: del actors[a]; moved = True; break
                if step is Asleep: break
                moved = True
        for a in list(stopped):
            stopped[a] -= 1
            if stopped[a] <= 0 or not moved: del stopped[a]; moved = True
        at_rest = not moved
        assert moved or m.over == m.calls, f'asleep: {m.over} of {m.calls} calls are over, {m.word}, {m.count}'
    assert not m.has, f'{m.has}: servers sleep, though nobody wants what they are at'
    return m.stats

if __name__ == '__main__':
    first, last = int(sys.argv[1]), int(sys.argv[2]); variant = sys.argv[3] if len(sys.argv) > 3 else None
    total = {}
    for seed in range(first, last):
        try:
            for key, value in run(seed, variant).items(): total[key] = total.get(key, 0) + value
        except AssertionError as e: print(f'seed {seed}: {e}'); sys.exit(1)
    print(f'{last - first} runs: {total}')
