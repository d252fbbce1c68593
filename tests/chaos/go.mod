module parley/tests/chaos

go 1.26.0
