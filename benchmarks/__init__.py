"""How fast fastnn is, beside its peers and beside what the machine can do: `python -m benchmarks --help`.

`workloads` lists what is timed, `engines` who does it, `sections` what is asked, `goals` what is demanded. A `worker`
is one process that times one engine; `runner` lets the workers take turns; `results` keeps what they said as JSON;
`report`, `charts` and `compare` read it.
"""
