package allinone

import (
	"crypto/rand"
	"fmt"

	"github.com/alicebob/miniredis/v2"

	"parley/pkg/config"
)

// startRedis starts the store of presence. It is empty at every start, as presence is then. Other users of the machine
// can reach its port, so it has a password.
func startRedis() (*miniredis.Miniredis, config.Secret, error) {
	m := miniredis.NewMiniRedis()
	m.ClockTTL(true) // by itself nothing in it ever expires
	password := rand.Text()
	m.RequireUserAuth("default", password)
	if err := m.StartAddr("127.0.0.1:0"); err != nil {
		return nil, "", fmt.Errorf("start the embedded Redis: %w", err)
	}
	return m, config.Secret("redis://default:" + password + "@" + m.Addr() + "/0"), nil
}
