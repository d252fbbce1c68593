package gateway

import (
	"context"
	"encoding/json"

	"parley.example/pkg/api"
	"parley.example/pkg/rpc"
	"parley.example/pkg/subject"
	"parley.example/services/gateway/internal/bus"
)

// What gateways say to each other: a poll that reached another gateway than the one that holds its connection (package legacy), and contacts lists that
// were served.

// serveNode answers other gateways and listens to them.
func (s *Service) serveNode() (stop func(), err error) {
	stopAnswers, err := bus.ServeNode(s.bus, s.node, s.engine.Exchange)
	if err != nil {
		return nil, err
	}
	unsubscribe, err := s.bus.Subscribe(subject.ServedEvents, func(body []byte) {
		var v api.Served
		if json.Unmarshal(body, &v) == nil {
			if len(v.Listed) > 0 {
				s.hub.NamesListed(v.User, v.Listed)
			} else {
				s.legacy.Served(v.User, v.Online)
			}
		}
	})
	if err != nil {
		stopAnswers()
		return nil, err
	}
	return func() { unsubscribe(); stopAnswers() }, nil
}

// served tells that an old client was served a contacts list.
func (s *Service) served(user string, online []string) {
	s.tellServed(api.Served{User: user, Online: online})
}

// listed tells whom a page of contacts named, where a session gets the presence of those only.
func (s *Service) listed(user string, names []string) {
	if _, small := s.directory.SmallDirectory(); !small && s.directory.Mode() == api.Everyone && len(names) > 0 {
		s.tellServed(api.Served{User: user, Listed: names})
	}
}

// peersMost is how many conversations a session's presence begins with.
const peersMost = 400

// peers are those with whom a user talked last.
func peers(services rpc.Caller) func(context.Context, string) ([]string, error) {
	return func(ctx context.Context, user string) (names []string, err error) {
		for after := ""; len(names) < peersMost; {
			page, err := api.HistoryConversations.Call(ctx, services, api.ConversationsRequest{Username: user, After: after, Limit: 200})
			if err != nil {
				return nil, err
			}
			for _, c := range page.Conversations {
				names = append(names, c.Peer)
			}
			if after = page.Next; after == "" {
				break
			}
		}
		return names, nil
	}
}

// tellServed tells all gateways, this one included: the user's connection may be at any of them.
func (s *Service) tellServed(v api.Served) {
	body, err := json.Marshal(v)
	if err == nil {
		err = s.bus.Publish(subject.ServedEvents, body)
	}
	if err != nil {
		s.log.Debug("a contacts list was not told of; an old client hears of everybody who is online, a native one does not know", "error", err)
	}
}
