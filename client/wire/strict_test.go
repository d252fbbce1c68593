package wire

import (
	"errors"
	"testing"
)

// What a client said is taken as it was said, or refused.
func TestDecodeChangesNothing(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`{"event":"e","data":{"content":"\ud800"}}`, `{"event":"e","data":{"content":"\udc00"}}`, `{"event":"e","data":{"content":"\ud800x"}}`,
		`{"event":"e","data":{"content":"\ud800\ud800"}}`, `{"event":"e","data":{"\udfff":1}}`, `{"event":"e","data":[{"x":["\uD8ff\u0041"]}]}`,
		`{"event":"e","event":"f"}`, `{"event":"e","data":{"content":"a","content":"b"}}`, `{"event":"e","data":{"x":[{"a":1,"\u0061":2}]}}`,
		`{"event":"\ud800"}`,
	} {
		_, err := DecodeFrame([]byte(text))
		if e := (*Error)(nil); !errors.As(err, &e) || e.Code != InvalidFrame {
			t.Errorf("%s: %v", text, err)
		}
	}
	for text, want := range map[string]Send{
		`{"event":"e","data":{"content":"\ud83d\ude00 \\ud800 \"\u00e4"}}`:                                      {Content: "😀 \\ud800 \"ä"},
		`{"event":"e","data":{"Content":"x","content":"a","CONTENT":"y"}, "Event":"f"}`:                         {Content: "a"},
		`{"event":"e","Data":{"content":"x"},"data" : { "CONTENT" : [1,{"a":{}}] , "conversation_room":"r" } }`: {Room: "r"},
	} {
		f, err := DecodeFrame([]byte(text))
		var got Send
		if err == nil {
			err = DecodeData(f, &got)
		}
		if err != nil || f.Event != "e" || got != want {
			t.Errorf("%s: %+v %+v %v", text, f, got, err)
		}
	}
}

func TestDecodeWholeNumbersAndNull(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{`{"seq":21.0}`: 21, `{"seq":2.1e1}`: 21, `{"seq":210e-1}`: 21, `{"seq":-0.0}`: 0, `{"seq":null}`: 0} {
		var m Marker
		if err := DecodeData(Frame{Data: []byte(text)}, &m); err != nil || m.Seq != want {
			t.Errorf("%s: %d %v", text, m.Seq, err)
		}
	}
	for _, text := range []string{`{"seq":21.5}`, `{"seq":1e300}`, `{"seq":"21"}`} {
		if err := DecodeData(Frame{Data: []byte(text)}, &Marker{}); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
	var j Join
	if err := DecodeData(Frame{Data: []byte(`{"rooms":null,"room":"a&b","since":{"a&b":7.0},"resume":null,"device":null}`)}, &j); err != nil || !j.Rooms.IsZero() || j.Since["a&b"] != 7 {
		t.Errorf("%+v %v", j, err)
	}
	if err := DecodeData(Frame{Data: []byte(`{"rooms":["a&b"],"room":null}`)}, &j); err != nil || len(j.Rooms.List) != 1 {
		t.Errorf("%+v %v", j, err)
	}
}
