package wire

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func code(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func nest(n int) string {
	return `{"event":"e","data":` + strings.Repeat("[", n-1) + strings.Repeat("]", n-1) + `}`
}

func TestDecodeFrame(t *testing.T) {
	for in, want := range map[string]Frame{
		`{"event":"join"}`:                                     {Event: "join"},
		" \t\r\n{ \"event\" : \"join\" } \t\r\n":               {Event: "join"},
		`{"event":"join","data":{"room":"a&b"},"id":"1"}`:      {Event: "join", Data: json.RawMessage(`{"room":"a&b"}`), ID: "1"},
		`{"event":"x","new":[1,{"a":null}],"id":null}`:         {Event: "x"},
		`{"event":"x","data":"}]{[\"\\"}`:                      {Event: "x", Data: json.RawMessage(`"}]{[\"\\"`)},
		`{"event":"x","id":"` + strings.Repeat("é", 64) + `"}`: {Event: "x", ID: strings.Repeat("é", 64)},
		nest(MaxDepth): {Event: "e", Data: json.RawMessage(strings.Repeat("[", MaxDepth-1) + strings.Repeat("]", MaxDepth-1))},
	} {
		got, err := DecodeFrame([]byte(in))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{
		"", " ", "x", "null", "1", `"x"`, "[]", `[{"event":"x"}]`, "{}", `{"event":""}`, `{"event":null}`, `{"event":1}`, `{"event":"x","id":1}`,
		`{"event":"x"`, `{"event":"x"}}`, `{"event":"x"}{}`, `{"event":"x"} x`, `{"event":"x"}` + "\x00", `}{"event":"x"}`, `"a"{"event":"x"}`,
		"{\"event\":\"\xff\"}", "{\"event\":\"x\",\"data\":\"\xc3\x28\"}", "\xef\xbb\xbf{\"event\":\"x\"}",
		`{"event":"x","id":"` + strings.Repeat("é", 65) + `"}`, `{'event':'x'}`, `{"event":"x",}`, "{\"event\":\"x\ny\"}",
		nest(MaxDepth + 1), strings.Repeat("[", 1<<20), strings.Repeat(`{"a":`, 1<<18), `{"event":"x","data":` + strings.Repeat("[", 100), `{"event":"x\`,
	} {
		if f, err := DecodeFrame([]byte(in)); code(err) != InvalidFrame {
			t.Errorf("%.80q: %+v, %v", in, f, err)
		}
	}
	// The event of a frame with a bad id is known, so that it can be counted.
	if f, err := DecodeFrame([]byte(`{"event":"join","id":"` + strings.Repeat("x", 65) + `"}`)); f.Event != "join" || err == nil {
		t.Errorf("%+v, %v", f, err)
	}
	// A buffer that is read into again must not change what was decoded.
	b := []byte(`{"event":"join","data":{"room":"a&b"},"id":"1"}`)
	f, err := DecodeFrame(b)
	if err != nil {
		t.Fatal(err)
	}
	clear(b)
	if f.Event != "join" || string(f.Data) != `{"room":"a&b"}` || f.ID != "1" {
		t.Errorf("the frame changed with its buffer: %+v", f)
	}
}

func TestDecodeData(t *testing.T) {
	for in, want := range map[string]Join{
		`{"room":"a&b"}`: {Room: "a&b"},
		`{"rooms":"*"}`:  {Rooms: RoomList{All: true}},
		`{"rooms":["a&b"],"since":{"a&b":7},"x":[1]}`: {Rooms: RoomList{List: []string{"a&b"}}, Since: map[string]int64{"a&b": 7}},
		`{"rooms":[],"resume":"r","device":"d"}`:      {Rooms: RoomList{List: []string{}}, Resume: "r", Device: "d"},
		`{}`:                                          {},
	} {
		var got Join
		if err := DecodeData(Frame{Data: json.RawMessage(in)}, &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{
		"", "null", "[]", "1", `"x"`, `{"room":1}`, `{"rooms":"all"}`, `{"rooms":""}`, `{"rooms":1}`, `{"rooms":{}}`, `{"rooms":[1]}`,
		`{"since":{"a&b":"7"}}`, `{"since":{"a&b":1.5}}`, `{"since":{"a&b":9223372036854775808}}`, `{"since":[]}`,
	} {
		var got Join
		if err := DecodeData(Frame{Data: json.RawMessage(in)}, &got); code(err) != InvalidArgument {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
}

func TestMessageIDValid(t *testing.T) {
	for _, id := range []string{"a", "0", "A-Z_a.z:9", "-", ".", strings.Repeat("x", 64), "01JV6C0W7J8ZQ"} {
		if !ValidMessageID(id) {
			t.Errorf("%q is refused", id)
		}
	}
	for _, id := range []string{"", " ", "a b", "a/b", "a&b", "é", "a\x00", "a\n", strings.Repeat("x", 65), "*", ">", "a,b", "\xff"} {
		if ValidMessageID(id) {
			t.Errorf("%q is taken", id)
		}
	}
}

func TestTimestamp(t *testing.T) {
	for in, want := range map[string]string{
		`"2026-03-01T09:30:00Z"`:           `"2026-03-01T09:30:00.000Z"`,
		`"2026-03-01T11:30:00.1+02:00"`:    `"2026-03-01T09:30:00.100Z"`,
		`"2026-03-01T09:30:00.123999999Z"`: `"2026-03-01T09:30:00.123Z"`,
	} {
		var ts Timestamp
		if err := json.Unmarshal([]byte(in), &ts); err != nil {
			t.Fatal(err)
		}
		got, err := json.Marshal(ts)
		if err != nil || string(got) != want {
			t.Errorf("%s: %s, %v", in, got, err)
		}
	}
	for _, in := range []string{`"yesterday"`, `1767225600`, `""`, `{}`, `"0000-01-01T00:00:00+23:59"`, `"9999-12-31T23:59:59-23:59"`} {
		var ts Timestamp
		if err := json.Unmarshal([]byte(in), &ts); err == nil {
			t.Errorf("%s is taken", in)
		}
	}
	if !Millis(0).IsZero() || Millis(1767225600123).UnixMilli() != 1767225600123 || Millis(1).Location() != time.UTC {
		t.Error("Millis")
	}
}
