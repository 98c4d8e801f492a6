"""What a worker does: data, model, engine, checkpoints, one trial from first step to last.

Import `loop` (a trial), `probe`, `baseline` and `rehearsal`; `data` and `model` also to plan.
It knows no Ray and no store: a worker hands it its place and takes its measurements.
"""
