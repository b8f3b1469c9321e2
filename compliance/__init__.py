"""Holds the WebSocket server and client against the Autobahn|Testsuite, see README.md."""
