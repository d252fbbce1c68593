package session

import (
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"parley.example/client/wire"
	"parley.example/pkg/room"
	"parley.example/services/gateway/internal/inbox"
)

// Join takes a join of the client: presence, what was missed and caught_up follow.
func (s *Session) Join(j wire.Join, re string) error {
	job, joined, refused, err := s.readJoin(j)
	if err != nil {
		return err
	}
	if err := s.in.Refuses(job); err != nil {
		return err
	}
	s.Ack(wire.Ack{Joined: joined, Refused: refused}, re)
	if re == "" && len(refused) > 0 { // there is no ack that could tell
		s.SendError(wire.E(refused[0].Code, "not joined: "+refused[0].Room), "")
	}
	if err := s.join(job); err != nil {
		return err
	}
	s.scope.Near()
	return nil
}

// Enter joins rooms of the user's as a join of them does that brings nothing; those that are joined already are left alone. Only the connection's
// reader may call it.
func (s *Session) Enter(rooms ...room.Room) error {
	if rooms = slices.DeleteFunc(rooms, s.in.Joins); len(rooms) == 0 {
		return nil
	}
	return s.join(inbox.Job{Rooms: rooms})
}

// join is called by the connection's reader.
func (s *Session) join(job inbox.Job) error {
	if err := s.activate(); err != nil {
		return err
	}
	if job.Device != "" {
		job.Other = s.receipts.name(job.Device)
	}
	s.in.Join(job)
	return nil
}

// Joins reports whether a room is joined, or about to be.
func (s *Session) Joins(r room.Room) bool { return s.in.Joins(r) }

// CatchingUp reports whether the session reads what it missed.
func (s *Session) CatchingUp() bool { return s.in.CatchingUp() }

// ownRooms are what names of rooms turned out to be.
type ownRooms struct {
	rooms   []room.Room
	told    []string       // how the answer names them
	refused []wire.Refusal // what is no room of the user's
	why     error          // of the first that is none
}

// roomsOf reads names of rooms of one's own. It fails when it cannot be known.
func (s *Session) roomsOf(names []string) (own ownRooms, err error) {
	seen := make(map[room.Room]struct{}, len(names))
	for _, n := range names {
		r, err := s.OwnRoom(n)
		var no *wire.Error
		switch {
		case errors.As(err, &no) && no.Code != wire.Unavailable && no.Code != wire.Internal:
			own.refused = append(own.refused, wire.Refusal{Room: n, Code: no.Code})
			if own.why == nil {
				own.why = err
			}
			continue
		case err != nil:
			return own, err
		}
		if _, twice := seen[r]; !twice {
			seen[r] = struct{}{}
			own.rooms = append(own.rooms, r)
			own.told = append(own.told, s.told(r, n))
		}
	}
	return own, nil
}

func (s *Session) readJoin(j wire.Join) (job inbox.Job, joined []string, refused []wire.Refusal, err error) {
	one, many := j.Room != "", !j.Rooms.IsZero()
	if one == many {
		return job, nil, nil, wire.E(wire.InvalidArgument, `join has either "room" or "rooms"`)
	}
	names := j.Rooms.List
	if one {
		names = []string{j.Room}
	}
	job.All = j.Rooms.All
	if !job.All && len(names) == 0 || len(names) > wire.MaxJoinRooms {
		return job, nil, nil, wire.E(wire.InvalidArgument, "rooms has 1 to 5000 rooms")
	}
	if len(j.Since) > wire.MaxSinceRooms {
		return job, nil, nil, wire.E(wire.InvalidArgument, "since has at most 500 rooms")
	}
	if utf8.RuneCountInString(j.Device) > wire.MaxIDChars || strings.ContainsFunc(j.Device, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
		return job, nil, nil, wire.E(wire.InvalidArgument, "device is at most 64 characters of text")
	}
	job.Device = j.Device
	own, err := s.roomsOf(names)
	if err != nil {
		return job, nil, nil, err
	}
	if job.Rooms, joined, refused = own.rooms, own.told, own.refused; job.All {
		joined = []string{"*"}
	} else if len(job.Rooms) == 0 {
		return job, nil, nil, own.why
	}
	more, err := s.readSince(&job, j.Since)
	if err != nil {
		return job, nil, nil, err
	}
	for _, m := range more {
		if !slices.Contains(refused, m) {
			refused = append(refused, m)
		}
	}
	if j.Resume != "" {
		if job.Vector, err = inbox.DecodeResume(j.Resume, s.hub.Router.Partitions()); err != nil {
			return job, nil, nil, err
		}
	}
	return job, joined, refused, nil
}

// readSince passes over rooms that are none of the user's, as a list of rooms does.
func (s *Session) readSince(job *inbox.Job, since map[string]int64) (refused []wire.Refusal, err error) {
	if len(since) == 0 {
		return nil, nil
	}
	job.Since = make(map[string]int64, len(since))
	for n, seq := range since {
		if seq < 0 {
			return nil, wire.E(wire.InvalidArgument, "since has rooms and the last seq seen in each")
		}
		r, err := room.Parse(n)
		if err != nil || !r.Has(s.user) { // it may be written in another case
			own, err := s.roomsOf([]string{n})
			if err != nil {
				return nil, err
			}
			if refused = append(refused, own.refused...); len(own.rooms) == 0 {
				continue
			}
			r = own.rooms[0]
		}
		job.Since[r.String()] = seq
	}
	return refused, nil
}
