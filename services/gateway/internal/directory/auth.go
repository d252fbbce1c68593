package directory

import (
	"errors"
	"sync/atomic"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/rpc"
)

// maxTries is how often one question is asked, while auth answers others.
const maxTries = 3

// auth is the service, and whether asking it has a chance: after a failure nobody waits for it for a moment.
type auth struct {
	services rpc.Caller
	times    *times
	awayTill atomic.Int64 // Unix ns
	answered atomic.Int64 // when it answered last, Unix ns
}

func (a *auth) available() bool { return time.Now().UnixNano() >= a.awayTill.Load() }

// asked takes note of how a question ended. Answers, also bad ones, come from an auth that is there. While there are some, a failure is
// that of one replica among others, one without SQL or one that was stopping, and says nothing about the next question.
func (a *auth) asked(err error) {
	now := time.Now()
	if err == nil || !isUnavailable(err) {
		a.answered.Store(now.UnixNano())
		a.awayTill.Store(0)
	} else if now.UnixNano()-a.answered.Load() > int64(a.times.away) {
		a.awayTill.Store(now.Add(a.times.away).UnixNano())
	}
}

// question asks auth, again when it fails while others are answered: another replica may be well.
func question[T any](a *auth, ask func() (T, error)) (answer T, err error) {
	for range maxTries {
		answer, err = ask()
		a.asked(err)
		if err == nil || !isUnavailable(err) || !a.available() {
			break
		}
	}
	return answer, err
}

func isUnavailable(err error) bool {
	var e *wire.Error
	return !errors.As(err, &e) || e.Code == wire.Unavailable || e.Code == wire.Internal
}
