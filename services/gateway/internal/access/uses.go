package access

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"parley.example/pkg/api"
	"parley.example/pkg/token"
)

const (
	// maxNoted bounds what is remembered of uses, at about 100 bytes each. What is forgotten is told once more, which changes nothing.
	maxNoted = 1 << 16
	// tellAgain is the pause after auth could not be told.
	tellAgain = time.Second
	tellTime  = 3 * time.Second
)

// uses tells auth of the first use of each access token that came with a refresh: from then on the refresh token before it is no longer good
// (docs/adr/0065). It is told beside the request, which does not wait.
type uses struct {
	tell func(context.Context, api.UsedRequest) (api.Empty, error)
	log  *slog.Logger
	wake chan struct{}

	mu      sync.Mutex
	noted   map[string]int64 // by login: the turn of the youngest token that was used
	pending map[string]int64 // what auth has not been told
}

func newUses(tell func(context.Context, api.UsedRequest) (api.Empty, error), log *slog.Logger) *uses {
	return &uses{tell: tell, log: log, wake: make(chan struct{}, 1), noted: map[string]int64{}, pending: map[string]int64{}}
}

// note takes the claims of a token that was found good.
func (u *uses) note(c token.Claims) {
	if c.Turn == 0 {
		return // it came with the password: there is no refresh token before it
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.noted[c.SID] >= c.Turn {
		return
	}
	if len(u.noted) >= maxNoted {
		clear(u.noted)
	}
	if len(u.pending) >= maxNoted {
		return // auth has been away for long; the next use of the token is noted
	}
	u.noted[c.SID] = c.Turn
	u.pending[c.SID] = c.Turn
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

// take gives what to tell next.
func (u *uses) take() (list []api.Use) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for sid, turn := range u.pending {
		if len(list) == api.MaxUses {
			break
		}
		list = append(list, api.Use{SID: sid, Turn: turn})
		delete(u.pending, sid)
	}
	return list
}

func (u *uses) back(list []api.Use) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, x := range list {
		u.pending[x.SID] = max(u.pending[x.SID], x.Turn)
	}
}

func (u *uses) run(ctx context.Context) {
	for {
		list := u.take()
		if len(list) == 0 {
			select {
			case <-u.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		try, cancel := context.WithTimeout(ctx, tellTime)
		_, err := u.tell(try, api.UsedRequest{Uses: list})
		cancel()
		if err == nil {
			continue
		}
		u.log.Debug("auth was not told of the use of tokens; trying again", "error", err)
		u.back(list)
		select {
		case <-time.After(tellAgain):
		case <-ctx.Done():
			return
		}
	}
}
