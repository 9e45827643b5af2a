"""A pair of sockets without names, shared out by a fork."""

import log
from message import answer_all, ask


def answer(own, other):
    other.drop()
    answer_all(own, 11)


def run():
    one, other = log.pair("the pair")
    child = log.spawn(answer, other, one)
    other.drop()
    with one:
        for i in range(50):
            ask(one, f"question {i}".encode())
    log.wait(child)
