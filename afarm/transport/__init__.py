"""How bytes reach a node and come back; nothing about what they mean.

Each kind of node knows how to start the agent's interpreter on its machine and joins
its standard input and output to a `Receiver`: `local` on this machine, `ssh` through
asyncssh, `command` through any program, `memory` inside this process for tests.
"""
