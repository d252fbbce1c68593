package checker

import (
	"slices"
	"testing"
	"time"
)

// TestCheckerSmallHistories: in each a server does one thing that it must not do.
func TestCheckerSmallHistories(t *testing.T) {
	const room = "ann&bob"
	devices := []Device{
		{User: "ann", Name: "sdk", Dedupes: true, Keeps: true},
		{User: "bob", Name: "old", Echoes: true},
		{User: "bob", Name: "plain"},
		{User: "cid", Name: "sdk", Dedupes: true, Keeps: true},
	}
	type e = Event
	begin := []e{
		{Kind: Connected, User: "ann", Device: "sdk", Session: 1}, {Kind: CaughtUp, User: "ann", Device: "sdk", Session: 1},
		{Kind: Connected, User: "bob", Device: "old", Session: 1}, {Kind: CaughtUp, User: "bob", Device: "old", Session: 1},
		{Kind: Connected, User: "bob", Device: "plain", Session: 1}, {Kind: CaughtUp, User: "bob", Device: "plain", Session: 1},
		{Kind: Connected, User: "cid", Device: "sdk", Session: 1}, {Kind: CaughtUp, User: "cid", Device: "sdk", Session: 1},
	}
	sent := func(user, id string) e {
		return e{Kind: Sent, User: user, Device: "sdk", Session: 1, Room: room, Sender: user, ID: id, Content: id}
	}
	accepted := func(user, id string, seq int64) e {
		x := sent(user, id)
		x.Kind, x.Content, x.Seq = Accepted, "", seq
		return x
	}
	received := func(user, dev string, session int, sender, id string, seq int64) e {
		return e{Kind: Received, User: user, Device: dev, Session: session, Room: room, Sender: sender, ID: id, Content: id, Seq: seq}
	}
	listed := func(sender, id string, seq int64) e {
		return e{Kind: Listed, User: "ann", Device: "http", Room: room, Sender: sender, ID: id, Content: id, Seq: seq}
	}
	conversation := func(user string, unread, last int64) e {
		return e{Kind: Conversation, User: user, Device: "http", Room: room, Unread: unread, Seq: last}
	}
	// bob's old client is signed in: it sends, and is accepted.
	alive := []e{
		{Kind: Sent, User: "bob", Device: "old", Session: 1, Room: "bob&cid", Sender: "bob", ID: "alive", Content: "alive"},
		{Kind: Accepted, User: "bob", Device: "old", Session: 1, Room: "bob&cid", Sender: "bob", ID: "alive", Seq: 1},
		{Kind: Received, User: "cid", Device: "sdk", Session: 1, Room: "bob&cid", Sender: "bob", ID: "alive", Content: "alive", Seq: 1},
		{Kind: Received, User: "bob", Device: "plain", Session: 1, Room: "bob&cid", Sender: "bob", ID: "alive", Content: "alive", Seq: 1},
		{Kind: Conversation, User: "bob", Device: "http", Room: "bob&cid", Seq: 1},
	}
	asked := []e{
		{Kind: AskedRoom, User: "ann", Device: "http", Room: room}, {Kind: AskedConversations, User: "ann", Device: "http"}, {Kind: AskedConversations, User: "bob", Device: "http"},
	}
	long := func(x e) e {
		x.At = 2 * lateBound
		return x
	}
	good := []e{
		sent("ann", "m"), accepted("ann", "m", 1), received("bob", "old", 1, "ann", "m", 1), received("bob", "plain", 1, "ann", "m", 1),
		listed("ann", "m", 1), conversation("ann", 0, 1), conversation("bob", 1, 1),
	}
	look := func(events []e) []Violation {
		all := slices.Concat(begin, events, alive, []e{{Kind: Rested}}, asked)
		return Check(&History{Devices: devices, Events: all})
	}
	if bad := look(good); len(bad) > 0 {
		t.Fatalf("found in a good one: %v", bad)
	}
	for name, x := range map[string]struct {
		what   string
		events []e
	}{
		"a third person's message is accepted, delivered and listed": {Leaked, []e{
			sent("cid", "m"), accepted("cid", "m", 1), received("ann", "sdk", 1, "cid", "m", 1), received("bob", "old", 1, "cid", "m", 1), received("bob", "plain", 1, "cid", "m", 1),
			listed("cid", "m", 1), conversation("ann", 1, 1), conversation("bob", 1, 1),
		}},
		"history has nothing of a room, neither messages nor conversation": {Unlisted, []e{
			sent("ann", "m"), accepted("ann", "m", 1), received("bob", "old", 1, "ann", "m", 1), received("bob", "plain", 1, "ann", "m", 1),
		}},
		"one of two users has no conversation": {Markers, []e{
			sent("ann", "m"), accepted("ann", "m", 1), received("bob", "old", 1, "ann", "m", 1), received("bob", "plain", 1, "ann", "m", 1),
			listed("ann", "m", 1), conversation("ann", 0, 1),
		}},
		"what was received and never accepted is not in history": {Unlisted, []e{
			sent("ann", "l"), accepted("ann", "l", 1), received("bob", "old", 1, "ann", "l", 1), received("bob", "plain", 1, "ann", "l", 1),
			sent("ann", "m"), {Kind: Unknown, User: "ann", Device: "sdk", Session: 1, Room: room, Sender: "ann", ID: "m", GaveUp: true},
			received("ann", "sdk", 1, "ann", "m", 2), received("bob", "old", 1, "ann", "m", 2), received("bob", "plain", 1, "ann", "m", 2),
			listed("ann", "l", 1), conversation("ann", 0, 2), conversation("bob", 2, 2),
		}},
		"an old client that is there all the time gets nothing": {LostTail, []e{
			sent("ann", "m"), accepted("ann", "m", 1), received("bob", "plain", 1, "ann", "m", 1),
			listed("ann", "m", 1), conversation("ann", 0, 1), conversation("bob", 1, 1),
		}},
		"the sender gets received_message and then message_accepted": {Twice, []e{
			sent("ann", "m"), received("ann", "sdk", 1, "ann", "m", 1), accepted("ann", "m", 1), received("bob", "old", 1, "ann", "m", 1), received("bob", "plain", 1, "ann", "m", 1),
			listed("ann", "m", 1), conversation("ann", 0, 1), conversation("bob", 1, 1),
		}},
		"a plain client gets nothing": {LostTail, []e{
			sent("ann", "m"), accepted("ann", "m", 1), received("bob", "old", 1, "ann", "m", 1),
			listed("ann", "m", 1), conversation("ann", 0, 1), conversation("bob", 1, 1),
		}},
		"a plain client gets it after all has come to rest": {LostTail, []e{
			sent("ann", "m"), accepted("ann", "m", 1), received("bob", "old", 1, "ann", "m", 1), {Kind: Rested}, received("bob", "plain", 1, "ann", "m", 1),
			listed("ann", "m", 1), conversation("ann", 0, 1), conversation("bob", 1, 1),
		}},
		"a session that is not the device's last gets nothing": {LostPrefix, []e{
			sent("ann", "m"), accepted("ann", "m", 1), received("bob", "old", 1, "ann", "m", 1),
			sent("ann", "n"), accepted("ann", "n", 2), received("bob", "old", 1, "ann", "n", 2), received("bob", "plain", 1, "ann", "n", 2),
			long(e{Kind: Disconnected, User: "bob", Device: "plain", Session: 1}), {Kind: Connected, User: "bob", Device: "plain", Session: 2}, {Kind: CaughtUp, User: "bob", Device: "plain", Session: 2},
			listed("ann", "m", 1), listed("ann", "n", 2), conversation("ann", 0, 2), conversation("bob", 2, 2),
		}},
		"the sender gets message_accepted and received_message in one session": {Twice, []e{
			sent("ann", "m"), accepted("ann", "m", 1), received("ann", "sdk", 1, "ann", "m", 1), received("bob", "old", 1, "ann", "m", 1), received("bob", "plain", 1, "ann", "m", 1),
			listed("ann", "m", 1), conversation("ann", 0, 1), conversation("bob", 1, 1),
		}},
	} {
		t.Run(name, func(t *testing.T) {
			bad := look(x.events)
			if !slices.ContainsFunc(bad, func(v Violation) bool { return v.What == x.what }) {
				t.Errorf("not found, but %v", bad)
			}
		})
	}
}

// TestCheckerWhatSessionsNeedNotGet: each history is good.
func TestCheckerWhatSessionsNeedNotGet(t *testing.T) {
	const room = "ann&bob"
	type e = Event
	sent := func(id string, at time.Duration) e {
		return e{At: at, Kind: Sent, User: "ann", Device: "sdk", Session: 1, Room: room, Sender: "ann", ID: id, Content: id}
	}
	accepted := func(id string, at time.Duration) e {
		return e{At: at, Kind: Accepted, User: "ann", Device: "sdk", Session: 1, Room: room, Sender: "ann", ID: id, Seq: 1}
	}
	bob := func(k Kind, dev string, session int, at time.Duration) e {
		x := e{At: at, Kind: k, User: "bob", Device: dev, Session: session}
		if k == Received {
			x.Room, x.Sender, x.ID, x.Content, x.Seq = room, "ann", "m", "m", 1
		}
		return x
	}
	s := time.Second
	ann := []e{{Kind: Connected, User: "ann", Device: "sdk", Session: 1}, {Kind: CaughtUp, User: "ann", Device: "sdk", Session: 1}}
	for name, events := range map[string][]e{
		"it broke before what was late came": {
			bob(Connected, "plain", 1, 0), bob(CaughtUp, "plain", 1, 0), sent("m", s), accepted("m", 2*s), bob(Disconnected, "plain", 1, 100*s),
			bob(Connected, "plain", 2, 101*s), bob(Received, "plain", 2, 102*s), bob(CaughtUp, "plain", 2, 103*s),
		},
		"sent before it had caught up, and another device has it": {
			bob(Connected, "other", 1, 0), bob(CaughtUp, "other", 1, 0), bob(Connected, "plain", 1, 0), sent("m", s), bob(CaughtUp, "plain", 1, 2*s), accepted("m", 3*s), bob(Received, "other", 1, 3*s),
		},
		"an old client that was signed out, and does not know": {
			bob(Connected, "old", 1, 0), bob(CaughtUp, "old", 1, 0), sent("m", s), accepted("m", 2*s), bob(Disconnected, "old", 1, 300*s),
			bob(Connected, "old", 2, 301*s), bob(Received, "old", 2, 302*s), bob(CaughtUp, "old", 2, 303*s),
		},
		"its own, from an earlier session": {
			bob(Connected, "plain", 1, 0), bob(CaughtUp, "plain", 1, 0), sent("m", s), bob(Received, "plain", 1, 3*s),
			{At: 4 * s, Kind: Disconnected, User: "ann", Device: "sdk", Session: 1}, {At: 5 * s, Kind: Connected, User: "ann", Device: "sdk", Session: 2},
			{At: 5 * s, Kind: CaughtUp, User: "ann", Device: "sdk", Session: 2}, {At: 6 * s, Kind: Sent, User: "ann", Device: "sdk", Session: 2, Room: room, Sender: "ann", ID: "m", Content: "m"},
			{At: 7 * s, Kind: Received, User: "ann", Device: "sdk", Session: 2, Room: room, Sender: "ann", ID: "m", Content: "m", Seq: 1},
			{At: 8 * s, Kind: Accepted, User: "ann", Device: "sdk", Session: 2, Room: room, Sender: "ann", ID: "m", Seq: 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := &History{Devices: []Device{
				{User: "ann", Name: "sdk", Dedupes: true, Keeps: true}, {User: "bob", Name: "plain"}, {User: "bob", Name: "other"}, {User: "bob", Name: "old", Echoes: true},
			}, Events: slices.Concat(ann, events, []e{{At: 400 * s, Kind: Rested}})}
			if bad := Check(h); len(bad) > 0 {
				t.Errorf("found %v", bad)
			}
		})
	}
}
