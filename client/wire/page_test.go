package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func readDocument(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile("../../" + path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// payload is the data of an event; nil where it has none.
func payload(event string) any {
	switch event {
	case EvAuthenticate, EvRefreshToken:
		return &Authenticate{}
	case EvJoin:
		return &Join{}
	case EvSend:
		return &Send{}
	case EvTyping, EvRead, EvDelivered:
		return &Marker{}
	case EvWatch:
		return &Watch{}
	case EvWelcome:
		return &Welcome{}
	case EvAck:
		return &Ack{}
	case EvAccepted, EvReceived:
		return &Message{}
	case EvPresence:
		return &Presence{}
	case EvContactAdded, EvContactRemoved:
		return &Contact{}
	case EvGoingAway:
		return &GoingAway{}
	case EvCatchingUp:
		return &CatchingUp{}
	case EvCaughtUp:
		return &CaughtUp{}
	case EvError:
		return &Error{}
	}
	return nil
}

// Every frame of docs/protocol.md is one: those of the server byte for byte as it is written, those of clients without a field that is not read.
func TestProtocolPageFrames(t *testing.T) {
	seen := map[string]bool{}
	for n, line := range strings.Split(readDocument(t, "docs/protocol.md"), "\n") {
		side, text, ok := strings.Cut(line, " ")
		if !ok || side != ">" && side != "<" {
			continue
		}
		f, err := DecodeFrame([]byte(text))
		if err != nil {
			t.Errorf("line %d: %v", n+1, err)
			continue
		}
		seen[side+f.Event] = true
		data := payload(f.Event)
		if side == ">" {
			d := json.NewDecoder(strings.NewReader(text))
			d.DisallowUnknownFields()
			if err := d.Decode(&Frame{}); err != nil || f.Re != "" {
				t.Errorf("line %d: not a client's frame: %v", n+1, err)
			}
			if !slices.Contains(ClientEvents, f.Event) {
				t.Errorf("line %d: no client says %s", n+1, f.Event)
			}
		}
		if data == nil {
			if f.Data != nil {
				t.Errorf("line %d: %s has no data", n+1, f.Event)
			}
			continue
		}
		d := json.NewDecoder(bytes.NewReader(f.Data))
		d.DisallowUnknownFields()
		if err := d.Decode(data); err != nil {
			t.Errorf("line %d: the data of %s: %v", n+1, f.Event, err)
			continue
		}
		if side == ">" {
			continue
		}
		written := Encode(f.Event, data, f.Re)
		if m, ok := data.(*Message); ok {
			written = AppendMessage(nil, m, f.Event == EvAccepted, f.Re)
		}
		if string(written) != text {
			t.Errorf("line %d: the server writes\n%s, not\n%s", n+1, written, text)
		}
	}
	for _, e := range ClientEvents {
		if !seen[">"+e] {
			t.Errorf("docs/protocol.md has no example of %s", e)
		}
	}
	for _, e := range ServerEvents {
		if !seen["<"+e] {
			t.Errorf("docs/protocol.md has no example of %s", e)
		}
	}
}

// The tables of docs/protocol.md have each code, close and request, with what the code says of it.
func TestProtocolPageTables(t *testing.T) {
	page := readDocument(t, "docs/protocol.md")
	yes := map[bool]string{true: "yes", false: "no"}
	var want []string
	for _, c := range Codes {
		want = append(want, fmt.Sprintf("| `%s` | %d | %s |", c, c.HTTPStatus(), yes[c.Temporary()]))
	}
	for _, c := range Closes {
		want = append(want, fmt.Sprintf("| %d | %s | %s |", c.Code, c.Reason, yes[c.Reconnect]))
	}
	have := regexp.MustCompile("(?m)^\\| `[a-z_]+` \\| \\d+ \\| \\w+ \\||^\\| \\d+ \\| [^|]+ \\| \\w+ \\|").FindAllString(page, -1)
	if !slices.Equal(have, want) {
		t.Errorf("docs/protocol.md has\n%s\nthe code\n%s", strings.Join(have, "\n"), strings.Join(want, "\n"))
	}
	path := ""
	for _, line := range strings.Split(readDocument(t, "docs/openapi.yaml"), "\n") {
		if m := regexp.MustCompile(`^  (/v1/\S+):$`).FindStringSubmatch(line); m != nil {
			path = m[1]
		} else if m := regexp.MustCompile(`^  /`).FindString(line); m != "" {
			path = "" // the old clients', in docs/socketio.md
		}
		if m := regexp.MustCompile(`^    (get|put|post|delete):$`).FindStringSubmatch(line); m != nil && path != "" {
			if request := "`" + strings.ToUpper(m[1]) + " " + path + "`"; !strings.Contains(page, request) {
				t.Errorf("docs/protocol.md has no %s", request)
			}
		}
	}
}
