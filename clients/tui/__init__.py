"""The screen of `exeunt top`: a live view of a running program.

Three parts that know little of each other. `feed` asks the control socket on threads of its own and tells *facts*
(`facts`): joined, looked, happened, left. `model` is pure: it takes facts, with the time as an argument, and answers
lines: rates, order, filter. Everything below `app` draws them with Textual, and never waits for the program.

Textual is imported by `app` and by what only `app` imports; a plain frame (`exeunt top --once`) does without.
"""
