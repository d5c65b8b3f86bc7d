"""Benchmarks: `make bench` runs them all, `python -m tests.bench.NAME` one of them.

Nothing here is a test. What is compared is taken in turns, in one run: figures of one run can be
compared to each other, not to those of another machine or hour. Tables go to stdout, what is being
done to stderr, figures with the machine and the date to build/bench/NAME.json; `targets.py` holds
them against what llmd is to reach, `charts.py` draws some of them.

Programs that measure:   data_plane, profile, whole_daemon, rivals, swap, prompt, reading,
                         footprint, eviction, idle, growth, startup
What they measure with:  planes (the measurements of a proxy), load (the clients), instant_engine,
                         bare_plane (llmd's data plane alone), aiohttp_proxy (a rival)
Models made for them:    generated, by generated_mlx and generated_gguf; footprint_cases
"""
