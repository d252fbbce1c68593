package checker

import (
	"testing"
	"time"
)

func TestDuring(t *testing.T) {
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
