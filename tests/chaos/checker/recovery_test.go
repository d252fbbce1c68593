package checker

import (
	"testing"
	"time"
)

func TestRecoveryDuring(t *testing.T) {
	s := time.Second
	h := &History{Events: []Event{
		{At: 1 * s, Kind: Sent, Room: "a&b", Sender: "a", ID: "before"},
		{At: 10 * s, Kind: Disconnected, User: "a", Device: "x"},
		{At: 10 * s, Kind: Sent, Room: "a&b", Sender: "a", ID: "m"},
		{At: 11 * s, Kind: Accepted, Room: "a&b", Sender: "a", ID: "before"},
		{At: 12 * s, Kind: Connected, User: "a", Device: "x"},
		{At: 13 * s, Kind: Sent, Room: "a&b", Sender: "a", ID: "m"},
		{At: 19 * s, Kind: Disconnected, User: "b", Device: "y"},
		{At: 21 * s, Kind: Accepted, Room: "a&b", Sender: "a", ID: "m"},
		{At: 25 * s, Kind: Connected, User: "b", Device: "y"},
		{At: 26 * s, Kind: Disconnected, User: "a", Device: "x"},
	}}
	want := Interval{Accepted: 1, Broken: 2, Reconnect: 6 * s, Accept: 11 * s, SlowestDevice: "b/y", SlowestMessage: "a m"}
	if got := During(h, 10*s, 20*s); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := During(h, 24*s, 30*s); got.Reconnect != 0 || got.SlowestDevice != "" {
		t.Errorf("nothing lasts at the very end: %+v", got)
	}
}

// TestRecoveryCountsWhoNeverRecovers: and what was sent before the fault and comes after it.
func TestRecoveryCountsWhoNeverRecovers(t *testing.T) {
	s := time.Second
	h := &History{Events: []Event{
		{At: 1 * s, Kind: Sent, User: "a", Device: "x", Room: "a&b", Sender: "a", ID: "1"},
		{At: 1 * s, Kind: Sent, User: "b", Device: "y", Room: "a&b", Sender: "b", ID: "2"},
		{At: 2 * s, Kind: Accepted, User: "a", Device: "x", Room: "a&b", Sender: "a", ID: "1"},
	}}
	if r := Recovery(h, s, 30*s); r.AllAgain < 29*s {
		t.Errorf("%d senders, of whom one is never accepted again: all again after %s", r.Senders, r.AllAgain)
	}
	// What was accepted before the fault and comes 20 s after it.
	h = &History{Events: []Event{
		{At: 0, Kind: Sent, User: "a", Device: "x", Room: "a&b", Sender: "a", ID: "0"},
		{At: 0, Kind: Accepted, User: "a", Device: "x", Room: "a&b", Sender: "a", ID: "0"},
		{At: 2 * s, Kind: Sent, User: "a", Device: "x", Room: "a&b", Sender: "a", ID: "1"},
		{At: 3 * s, Kind: Accepted, User: "a", Device: "x", Room: "a&b", Sender: "a", ID: "1"},
		{At: 3 * s, Kind: Received, User: "b", Device: "y", Room: "a&b", Sender: "a", ID: "1"},
		{At: 21 * s, Kind: Received, User: "b", Device: "y", Room: "a&b", Sender: "a", ID: "0", Late: true},
	}}
	if r := Recovery(h, s, 30*s); r.ReceiversCaughtUp < 20*s {
		t.Errorf("a receiver got what it missed after 20 s: caught up after %s", r.ReceiversCaughtUp)
	}
}
