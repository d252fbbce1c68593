package presence

import "parley.example/pkg/api"

// net is what is left of a series of changes.
type net struct {
	online  []string
	offline []api.PresenceChange
}

// reduce leaves one change a user, the last one, and none for those who are where they were. Each user's changes
// alternate, so that is so when their number is even. Those whom skip (nil: nobody) names are left out.
func reduce(changes []api.PresenceChange, skip func(user string) bool) net {
	var n net
	take := func(c api.PresenceChange) {
		switch {
		case skip != nil && skip(c.User):
		case c.Online:
			n.online = append(n.online, c.User)
		default:
			n.offline = append(n.offline, c)
		}
	}
	if len(changes) == 1 { // by far the most frequent
		take(changes[0])
		return n
	}
	total := make(map[string]int, len(changes))
	for _, c := range changes {
		total[c.User]++
	}
	for i := len(changes) - 1; i >= 0; i-- {
		c := changes[i]
		if total[c.User]%2 == 1 {
			take(c)
		}
		total[c.User] = 0 // what was before does not matter
	}
	return n
}

// watchSet is a set of watchers: a slice while small, as most are, then a map.
type watchSet struct {
	few  []*watching
	many map[*watching]struct{}
}

const fewWatchers = 16

func (s *watchSet) add(e *watching) {
	switch {
	case s.many != nil:
		s.many[e] = struct{}{}
	case len(s.few) < fewWatchers:
		s.few = append(s.few, e)
	default:
		s.many = make(map[*watching]struct{}, 2*fewWatchers)
		for _, f := range s.few {
			s.many[f] = struct{}{}
		}
		s.many[e], s.few = struct{}{}, nil
	}
}

func (s *watchSet) remove(e *watching) {
	if s.many != nil {
		delete(s.many, e)
		return
	}
	for i, f := range s.few {
		if f == e {
			last := len(s.few) - 1
			s.few[i], s.few[last] = s.few[last], nil
			s.few = s.few[:last]
			return
		}
	}
}

func (s *watchSet) empty() bool { return len(s.few) == 0 && len(s.many) == 0 }

func (s *watchSet) each(f func(*watching)) {
	for _, e := range s.few {
		f(e)
	}
	for e := range s.many {
		f(e)
	}
}
