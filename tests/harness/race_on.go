//go:build race

package harness

// race: the race detector watches this test.
const race = true
