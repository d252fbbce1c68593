package httpapi

import (
	"net/http"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/token"
)

const (
	historyDefault = 50
	historyMost    = 200
)

var errNotYours = wire.E(wire.Forbidden, "this room belongs to two other people")

func (h *handler) conversations(w http.ResponseWriter, r *http.Request, c token.Claims) error {
	limit, err := queryLimit(r, historyDefault, historyMost)
	if err != nil {
		return err
	}
	page, err := api.HistoryConversations.Call(r.Context(), h.Services, api.ConversationsRequest{
		Username: c.Username, After: r.URL.Query().Get("after"), Limit: limit, MinApplied: h.Routed(),
	})
	if err != nil {
		return err
	}
	peers := make([]string, 0, len(page.Conversations))
	for _, v := range page.Conversations {
		peers = append(peers, v.Peer)
	}
	unseen := h.Directory.Unseen(r.Context(), c.Username, peers)
	out := wire.ConversationsPage{Conversations: make([]wire.Conversation, 0, len(page.Conversations)), Next: page.Next, Behind: page.Behind}
	for _, v := range page.Conversations {
		row := wire.Conversation{Room: v.Room, Peer: v.Peer, Unread: v.Unread, ReadSeq: v.ReadSeq, DeliveredSeq: v.DeliveredSeq}
		if !unseen[v.Peer] { // the peer's markers tell when it was there
			row.PeerReadSeq, row.PeerDeliveredSeq = v.PeerReadSeq, v.PeerDeliveredSeq
		}
		if v.LastMessage != nil {
			m := message(v.LastMessage)
			row.LastMessage = &m
		}
		out.Conversations = append(out.Conversations, row)
	}
	return writeJSON(w, http.StatusOK, out)
}

func (h *handler) messages(w http.ResponseWriter, r *http.Request, c token.Claims) error {
	limit, err := queryLimit(r, historyDefault, historyMost)
	if err != nil {
		return err
	}
	before, hasBefore, err := queryInt(r, "before", 1)
	if err != nil {
		return err
	}
	after, hasAfter, err := queryInt(r, "after", 0)
	if err != nil {
		return err
	}
	if hasBefore && hasAfter {
		return wire.E(wire.InvalidArgument, "before and after exclude each other")
	}
	pair, err := h.room(r, c)
	if err != nil {
		return err
	}
	out := wire.MessagesPage{Messages: []wire.Message{}}
	req := api.PageRequest{A: pair.A, B: pair.B, Before: before, Limit: limit, MinApplied: h.Routed()}
	if hasAfter {
		req.After = &after
	}
	page, err := api.HistoryPage.Call(r.Context(), h.Services, req)
	if err != nil {
		return err
	}
	out.More, out.Behind = page.More, page.Behind
	for i := range page.Messages {
		out.Messages = append(out.Messages, message(&page.Messages[i]))
	}
	return writeJSON(w, http.StatusOK, out)
}

// room is the room of the path, which must be the asker's own; that of one who was erased is still the asker's. One in which nothing was said
// answers the same, so the answer does not tell which names exist.
func (h *handler) room(r *http.Request, c token.Claims) (room.Room, error) {
	x, y, err := room.Split(r.PathValue("room"))
	if err != nil {
		return room.Room{}, wire.E(wire.InvalidArgument, room.ErrRoom.Error())
	}
	peer := y
	switch room.Fold(c.Username) { // before any look-up: the answer is the same whether the room exists or not
	case room.Fold(x):
	case room.Fold(y):
		peer = x
	default:
		return room.Room{}, errNotYours
	}
	registered, _, err := h.Directory.Recall(r.Context(), peer)
	if err != nil {
		return room.Room{}, err
	}
	pair, err := room.Of(c.Username, registered)
	if err != nil {
		return room.Room{}, errNotYours
	}
	return pair, nil
}

// message is a stored message as received_message has it.
func message(m *api.StoredMessage) wire.Message {
	return wire.Message{
		Sender: m.Sender, Content: m.Content, Room: room.Room{A: m.A, B: m.B}.String(), ID: m.ID,
		Seq: m.Seq, Prev: m.Prev, SentAt: wire.Millis(m.SentAt),
	}
}
