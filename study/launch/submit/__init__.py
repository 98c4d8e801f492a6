"""From a study file on this machine to a job on a Ray cluster, through its dashboard.

`pack_study` says what the job takes along, `submit_study` sends it, `follow` prints what it says.
"""
