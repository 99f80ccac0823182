# What CI runs of the models: the base of each for some seeds, which must hold, and each ablation with one seed with which it is known
# to fail, from `seeds.txt`. A model that has changed may need others: `check.py find` looks for them, from seed 0 on. Ablations that
# take longer than that to fail are not in `seeds.txt`, and named as left out: `table.py` and the tables of the models run them.
#
# usage: check.py [SEEDS_OF_BASE]              exit code 1 if a base fails or an ablation of seeds.txt holds
#        check.py find SECONDS [MODEL]...      writes seeds.txt anew, all of it or that of some models; an ablation gets so long
import importlib, itertools, pathlib, sys, time
import table
PLACE = pathlib.Path(__file__).with_name('seeds.txt')
def ablations(name):
    module = importlib.import_module(name)
    listed = next((listed for model, listed in table.ABLATIONS.items() if model is module), None) or module.ABLATIONS
    return listed.split() if isinstance(listed, str) else list(listed)
MODELS = sorted({model.__name__ for model in table.ABLATIONS} | {'doors', 'log', 'routes', 'slate', 'wakeup'})
def how(name, seed, variant):
    """How a run fails; None if it holds."""
    run = importlib.import_module(name).run
    given = variant if name == 'wakeup' else (variant or None) if name in ('log', 'routes', 'slate') else frozenset(variant.split(',')) if variant else frozenset()
    try: run(seed, set(given) if isinstance(given, frozenset) else given)
    except Exception as e:
        first = (e.args or ['assert'])[0]
        first = first[0] if isinstance(first, tuple) else first
        return None if first == 'livelock?' else str(first) or type(e).__name__
    return None
def known():
    rows = [line.split() for line in PLACE.read_text().splitlines() if line and not line.startswith('#')] if PLACE.exists() else []
    return {(model, variant): int(seed) for model, variant, seed in rows}
def find(limit, models):
    seeds = {key: seed for key, seed in known().items() if key[0] not in models}
    for name in models:
        for variant in ablations(name):
            began = time.time()
            seed = next((seed for seed in itertools.takewhile(lambda _: time.time() - began < limit, itertools.count()) if how(name, seed, variant)), None)
            print(name, variant, seed, '%.0f s' % (time.time() - began), flush=True)
            if seed is not None: seeds[name, variant] = seed
            lines = ['# Model, ablation, a seed with which it fails: written by check.py find.'] + ['%s %s %d' % (*key, seed) for key, seed in sorted(seeds.items())]
            PLACE.write_text('\n'.join(lines) + '\n')
def main():
    if sys.argv[1:2] == ['find']: return find(float(sys.argv[2]), sys.argv[3:] or MODELS)
    base = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    seeds = known(); bad = False
    for name in MODELS:
        began = time.time()
        failed = [(seed, found) for seed in range(base) if (found := how(name, seed, ''))]
        tried = [variant for variant in ablations(name) if (name, variant) in seeds]
        left = [variant for variant in ablations(name) if (name, variant) not in seeds]
        holding = [variant for variant in tried if not how(name, seeds[name, variant], variant)]
        bad |= bool(failed or holding)
        print('%-8s base: %s of %d seeds failed%s; ablations: %d of %d failed as they must%s; %.0f s' % (name, len(failed), base, ' ' + str(failed[:3]) if failed else '',
            len(tried) - len(holding), len(tried), (', not ' + ', '.join(holding) if holding else '') + (' (left out: ' + ', '.join(left) + ')' if left else ''), time.time() - began), flush=True)
    sys.exit(bad)
if __name__ == '__main__': main()
