"""`study check`: whether a study can run, before any GPU-hour is spent.

    base          a check's answer, and the list of checks in which one may need another
    local         storage, database, data, model, plan, disk: this machine, no Ray
    node_task     what one node sees; nodes asks each of them, nodes_judged says what it means
    resources     whether the trials fit the cluster, or what its autoscaler may add
    reach         whether the workers of a trial on several nodes reach one another
    memory        whether each arm's heaviest phase fits the devices, by formula
    probe_job     a real step of it, on real workers; forecast predicts hours from what it cost
    study_check   all of them in order

Ray is imported by `nodes`, `reach`, `resources` and `probe_job` only.
"""
