"""Sweeps: one experiment in many variants, as trials of an Optuna study that any number of processes work on.

    spec.py      what a sweep file says, checked
    changes.py   what the command line changes of it
    check.py     its experiments read before the first is trained
    cells.py     the experiment of each cell, as a file of its own
    folder.py    the sweep's folder and its study: planning, taking, ending, trying again
    trial.py     one trial: a process of the ordinary command, watched until it ends
    worker.py    trials one after the other
    measures.py  metrics read from a run's folder
    table.py     means and intervals over the seeds; as text, CSV, LaTeX
    plots.py     the same as a picture
    watch.py     trials run here and shown on the terminal
    launch.py    workers on this machine or on a cluster

Nothing here imports torch. The folder's layout and the sweep file's keys are described in docs/sweeps.md.
"""
