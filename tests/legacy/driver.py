"""Old clients in Python: python-socketio and requests, driven over standard input and output.

One JSON command a line comes in, one JSON line goes out for everything that happens. driver.mjs speaks the same lines.

  {"id", "do": "http", "method", "path", "headers", "body"}  ->  {"id", "status", "type", "text"}
  {"id", "do": "connect", "as", "transports", "late"}        ->  {"id"} or {"id", "error"}
  {"id", "do": "handlers", "as"}                             ->  {"id"}
  {"id", "do": "emit", "as", "name", "data", "ack"}          ->  {"id"}, with ack {"id", "args"} when the server has answered
  {"id", "do": "alive", "as", "name", "every"}               ->  {"id"}; connection_alive every so many seconds, 0 to stop
  {"id", "do": "transport", "as"}                            ->  {"id", "text"}
  {"id", "do": "disconnect", "as"}                           ->  {"id"}

A "raw" in place of "body" is sent as it stands, with no media type but that of "headers". "as" names one client of this process.
What it gets is told as {"as", "name", "args"} by the event handlers, and before that as {"as", "packet"}: what the server sent, in the order in which it came. The handlers of python-socketio run in a thread each, so
only the packets show the order; and the handlers are not there before "handlers" when the client connects "late".
"""

import json
import queue
import os
import sys
import threading

import requests
import socketio

EVENTS = ["received_message", "new_user_online", "user_has_gone_offline", "ai_response_received", "error"]

base = sys.argv[1]
output = threading.Lock()


def say(**line):
    text = json.dumps(line) + "\n"
    with output:
        sys.stdout.write(text)
        sys.stdout.flush()


class Client:
    """One client with a thread of its own, so that what it is told to do keeps its order while others wait."""

    def __init__(self, name):
        self.name = name
        self.sio = None
        self.stop_alive = None
        self.commands = queue.Queue()
        threading.Thread(target=self.work, daemon=True).start()

    def work(self):
        while True:
            command = self.commands.get()
            try:
                getattr(self, command["do"])(command)
            except Exception as e:  # the test decides what it means
                say(id=command["id"], error=f"{type(e).__name__}: {e}")

    def connect(self, command):
        # The five seconds that the library gives a request are too few for a machine that runs all tests at once.
        self.sio = sio = socketio.Client(request_timeout=30)
        receive = sio.eio._receive_packet

        def tap(packet):
            if packet.packet_type == 4 and not isinstance(packet.data, bytes):
                # The library has decoded the JSON of some; the test gets text.
                data = packet.data if isinstance(packet.data, str) else json.dumps(packet.data)
                say(**{"as": self.name, "packet": data})
            receive(packet)

        sio.eio._receive_packet = tap
        sio.on("disconnect", lambda: say(**{"as": self.name, "name": "disconnect", "args": []}))
        if not command.get("late"):
            self.listen()
        # So is the second that connect waits.
        sio.connect(base, transports=command.get("transports"), wait_timeout=30)
        say(id=command["id"])

    def listen(self):
        for event in EVENTS:
            self.sio.on(event, self.handler(event))

    def handler(self, event):
        return lambda *args: say(**{"as": self.name, "name": event, "args": args})

    def handlers(self, command):
        self.listen()
        say(id=command["id"])

    def emit(self, command):
        if command.get("ack"):
            self.sio.emit(command["name"], command["data"], callback=lambda *args: say(id=command["id"], args=args))
        else:
            self.sio.emit(command["name"], command["data"])
            say(id=command["id"])

    def alive(self, command):
        if self.stop_alive:
            self.stop_alive.set()
        self.stop_alive = stop = threading.Event()
        if command["every"]:
            threading.Thread(target=self.beat, args=(stop, command["name"], command["every"]), daemon=True).start()
        say(id=command["id"])

    def beat(self, stop, name, every):
        while not stop.wait(every):
            try:
                self.sio.emit("connection_alive", {"client": name})
            except socketio.exceptions.BadNamespaceError:
                pass  # it is not connected now

    def transport(self, command):
        say(id=command["id"], text=self.sio.transport())

    def disconnect(self, command):
        if self.stop_alive:
            self.stop_alive.set()
        self.sio.disconnect()
        say(id=command["id"])


def http(command):
    try:
        answer = requests.request(command["method"], base + command["path"], headers=command.get("headers"), json=command.get("body"), data=command.get("raw"), timeout=60)
        say(id=command["id"], status=answer.status_code, type=answer.headers.get("Content-Type", ""), text=answer.text)
    except requests.RequestException as e:
        say(id=command["id"], error=str(e))


def main():
    clients = {}
    say(ready=True)
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "http":
            threading.Thread(target=http, args=(command,), daemon=True).start()
            continue
        name = command["as"]
        if name not in clients:
            clients[name] = Client(name)
        clients[name].commands.put(command)
    # The threads of python-socketio would keep the process for as long as its connections last.
    os._exit(0)


main()
