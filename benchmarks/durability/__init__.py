"""Faults that a campaign must survive, and checks that it did.

`disk_trials` crashes a driver before each file operation and within each write, cuts
the power, and fills the disk; `process_trials` kills drivers, workers, nannies and
schedulers at random instants; `command_trials` hits single commands at each of their
system calls. Each hit campaign goes on to its end and is compared with one that was
left undisturbed: a `Trial` says what differs, how many labels were committed twice, how
many were made again, and the seconds lost.

The parts serve tests of a single file as well: `file_systems` whose operations fail at
a chosen step, or lose what was not synced, and the record of every state of a folder
while some work is done; `processes` that are cheap to start and kill; `comparison`
reads what a campaign made. Linux only.
"""
