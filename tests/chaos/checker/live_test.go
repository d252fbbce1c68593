package checker

import (
	"slices"
	"testing"

	"parley.example/client"
	"parley.example/tests/picture"
)

// TestCheckerPartings: what may be written while two people part and reunite, what is told of it, and what one learns of the other meanwhile.
func TestCheckerPartings(t *testing.T) {
	const room = "ann&bob"
	type e = Event
	by := func(k Kind, user, dev string) e { return e{Kind: k, User: user, Device: dev, Session: 1, Room: room} }
	message := func(k Kind, user, dev, id string) e {
		x := by(k, user, dev)
		x.Sender, x.ID, x.Content = user, id, id
		if k == Accepted {
			x.Content, x.Seq = "", 1
		}
		return x
	}
	got := func(id string) e {
		x := message(Received, "ann", "plain", id)
		x.Sender, x.Seq = "bob", 1
		return x
	}
	asks, parted := by(Parts, "ann", "http"), by(Parted, "ann", "http")
	back, reunited := by(Reunites, "ann", "http"), by(Reunited, "ann", "http")
	told, toldBack := by(ToldParted, "bob", "plain"), by(ToldReunited, "bob", "plain")
	sent, accepted, refused := message(Sent, "bob", "plain", "m"), message(Accepted, "bob", "plain", "m"), message(Refused, "bob", "plain", "m")
	sdkSent, sdkTold := message(Sent, "bob", "sdk", "m"), by(ToldParted, "bob", "sdk")
	sdkAccepted := message(Accepted, "bob", "sdk", "m")
	says := func(contacts bool) e {
		p := picture.Of("bob", nil, []client.Conversation{{Room: room, Peer: "ann"}})
		p.Contact("ann", contacts)
		return e{Kind: Says, User: "bob", Device: "http", Picture: p}
	}
	knows := func(dev string, contacts bool) e {
		x := says(contacts)
		x.Kind, x.Device, x.Session = Knows, dev, 1
		return x
	}
	conversation := func(read, delivered int64) e {
		return e{Kind: Conversation, User: "bob", Device: "http", Room: room, Seq: 1, PeerReadSeq: read, PeerDeliveredSeq: delivered}
	}
	begin := []e{
		{Kind: Connected, User: "ann", Device: "plain", Session: 1}, {Kind: CaughtUp, User: "ann", Device: "plain", Session: 1},
		{Kind: Connected, User: "bob", Device: "plain", Session: 1}, {Kind: CaughtUp, User: "bob", Device: "plain", Session: 1},
		{Kind: Connected, User: "bob", Device: "sdk", Session: 1}, {Kind: CaughtUp, User: "bob", Device: "sdk", Session: 1},
	}
	devices := []Device{{User: "ann", Name: "plain"}, {User: "bob", Name: "plain"}, {User: "bob", Name: "sdk", Dedupes: true, Keeps: true}}
	own := func(dev string) e { // a device of the sender's
		x := message(Received, "bob", dev, "m")
		x.Seq = 1
		return x
	}
	for name, x := range map[string]struct {
		what   string // "" for good
		events []e
	}{
		"taken before they part":                            {"", []e{sent, asks, parted, told, accepted, got("m"), own("sdk")}},
		"taken while nobody was told":                       {"", []e{asks, parted, sent, told, accepted, got("m"), own("sdk")}},
		"refused when told":                                 {"", []e{asks, parted, told, sent, refused}},
		"taken when told":                                   {Permission, []e{asks, parted, told, sent, accepted, got("m"), own("sdk")}},
		"delivered when told":                               {Permission, []e{asks, parted, told, sent, got("m"), accepted, own("sdk")}},
		"taken after they asked to reunite":                 {"", []e{asks, parted, told, sent, back, accepted, reunited, got("m"), own("sdk")}},
		"taken when told of an earlier parting":             {"", []e{asks, parted, told, back, reunited, asks, parted, sent, accepted, got("m"), own("sdk")}},
		"refused though reunited":                           {Permission, []e{asks, parted, told, back, reunited, toldBack, sent, refused}},
		"refused while the gateway may not know":            {"", []e{asks, parted, told, back, reunited, sent, refused}},
		"another session was told":                          {"", []e{asks, parted, told, by(Connected, "bob", "plain"), by(CaughtUp, "bob", "plain"), sent, accepted, got("m"), own("sdk")}},
		"the SDK may have come to another gateway":          {"", []e{asks, parted, sdkTold, sdkSent, sdkAccepted, got("m"), own("plain")}},
		"the SDK sent it again, and had been heard":         {"", []e{sdkSent, asks, parted, message(Refused, "bob", "sdk", "m"), got("m"), own("plain"), own("sdk")}},
		"who does not send again was not":                   {Acknowledge, []e{sent, asks, parted, refused, got("m"), own("sdk")}},
		"at the end it has not":                             {Permission, []e{asks, parted, says(false), knows("sdk", false), sdkSent, sdkAccepted, got("m"), own("plain")}},
		"all know that they have parted":                    {"", []e{asks, parted, says(false), knows("plain", false), knows("sdk", false)}},
		"one does not":                                      {Live, []e{asks, parted, says(false), knows("plain", false), knows("sdk", true)}},
		"HTTP does not":                                     {Live, []e{asks, parted, says(true), knows("plain", true), knows("sdk", true)}},
		"HTTP does not know that they have reunited":        {Live, []e{asks, parted, back, reunited, says(false), knows("plain", false)}},
		"the peer's marks are shown though they had parted": {Markers, []e{sent, accepted, got("m"), own("sdk"), asks, parted, conversation(0, 1)}},
		"and are shown again":                               {"", []e{sent, accepted, got("m"), own("sdk"), asks, parted, back, reunited, conversation(0, 1)}},
	} {
		t.Run(name, func(t *testing.T) {
			bad := Check(&History{Devices: devices, Events: slices.Concat(begin, x.events)})
			if x.what == "" && len(bad) > 0 || x.what != "" && !slices.ContainsFunc(bad, func(v Violation) bool { return v.What == x.what }) {
				t.Errorf("wanted %q, found %v", x.what, bad)
			}
			for _, v := range bad {
				if v.What != x.what {
					t.Errorf("found %s", v)
				}
			}
		})
	}
}
