// Package bot is a user who answers: an ordinary client of the deployment, for trying things out.
package bot

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"

	"parley.example/client"
)

// Echo answers every message to the session's user with the same text, until ctx ends. Bots are not answered: two of them would go on
// for ever.
func Echo(ctx context.Context, s *client.Session, bots []string, log *slog.Logger) error {
	conn, err := client.Dial(ctx, client.Options{Session: s})
	if err != nil {
		return fmt.Errorf("connect the echo bot: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	isBot := map[string]bool{s.Username(): true}
	for _, b := range bots {
		isBot[b] = true
	}
	for ev := range conn.Events() {
		m, ok := ev.(client.Message)
		if !ok || isBot[m.Sender] || m.Content == "" { // "": its sender was erased
			continue
		}
		// A message may come again after a restart, to be answered once all the same.
		_, err := conn.SendMessage(ctx, client.Outgoing{Room: m.Room, Content: m.Content, ID: answerID(m.Room, m.ID), Retry: true})
		if err == nil {
			err = conn.Read(ctx, m.Room, m.Seq)
		}
		if err != nil && ctx.Err() == nil {
			log.Warn("the echo bot did not answer", "error", err)
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("the echo bot's connection ended: %w", conn.Err())
}

// answerID is the id of the answer to a message.
func answerID(room, id string) string {
	h := sha256.Sum256([]byte(room + " " + id))
	return "echo-" + base64.RawURLEncoding.EncodeToString(h[:16])
}
