package gateway

import (
	"net/netip"
	"sync"

	"parley/pkg/wire"
)

// places counts connections, in all and per client address. IPv6 addresses count as their /64, which is what one client has.
type places struct {
	mu         sync.Mutex
	used       int
	byAddress  map[netip.Addr]int
	max        int
	perAddress int
}

func newPlaces(limit, perAddress int) *places {
	return &places{byAddress: map[netip.Addr]int{}, max: limit, perAddress: perAddress}
}

var (
	errFull    = wire.E(wire.TooManyConnections, "this gateway is full; try again, which may reach another one")
	errAddress = wire.E(wire.TooManyConnections, "too many connections from this address")
)

// take takes a place; release gives it back.
func (p *places) take(a netip.Addr) (release func(), err error) {
	if a.Is6() && !a.Is4In6() {
		if net, err := a.Prefix(64); err == nil {
			a = net.Addr()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.used >= p.max:
		return nil, errFull
	case p.byAddress[a] >= p.perAddress:
		return nil, errAddress
	}
	p.used++
	p.byAddress[a]++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.used--
		if p.byAddress[a]--; p.byAddress[a] == 0 {
			delete(p.byAddress, a)
		}
	}, nil
}
