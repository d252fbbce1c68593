package client_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"parley.example/client"
	"parley.example/client/wire"
)

// Rules 7 and 8: deliveries are lost, sockets break: each message comes once, and those that are not late in order.
func TestReceiveEachOnceInOrderWhateverBreaks(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 7))
			f := newFake(t)
			lisa := f.dial(client.Options{Session: f.session("lisa"), Resume: "0", Buffer: 8})
			const n = 300
			go func() {
				for i := range n {
					hidden := rng.IntN(5) == 0
					f.set(func() {
						if hidden {
							f.hide[f.last()+10] = true
						}
					})
					f.post(fmt.Sprint("m", i))
					switch rng.IntN(40) {
					case 0:
						f.kick(0)
					case 1:
						f.kick(wire.CloseSlow.Code)
					case 2:
						f.announce(wire.EvGoingAway, wire.GoingAway{ReconnectInMS: 1})
					}
				}
				// The server finds what it lost, and sends it late; some of it twice.
				for range 2 {
					for _, m := range f.msgs {
						if f.hide[m.Seq] {
							m.Late = true
							f.announce(wire.EvReceived, m)
						}
					}
				}
				f.post("end")
				f.kick(0) // what was announced to nobody comes with the resume
			}()
			came := map[string]int{}
			last := int64(0)
			for len(came) < n+1 {
				m := next[client.Message](t, lisa)
				came[m.ID]++
				if came[m.ID] > 1 {
					t.Errorf("%s came %d times", m.ID, came[m.ID])
				}
				if !m.Late {
					if m.Seq < last {
						t.Errorf("%s is out of order and not late", m.ID)
					}
					last = m.Seq
				}
			}
		})
	}
}
