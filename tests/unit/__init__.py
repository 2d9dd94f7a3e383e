"""The tests of single modules: tests/unit mirrors brokerd/ and client/."""
