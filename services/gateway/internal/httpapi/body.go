package httpapi

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"parley.example/client/wire"
	"parley.example/pkg/room"
)

var (
	errBody    = wire.E(wire.InvalidArgument, "the body is one JSON object in UTF-8 with the fields of this request")
	errTooLong = wire.E(wire.TooLarge, "the body is longer than 16 KiB")
	errName    = wire.E(wire.InvalidUsername, room.ErrName.Error())
)

// readJSON reads a body of exactly one JSON object into v. Fields that v does not have are ignored. No error says what was read.
func readJSON(w http.ResponseWriter, r *http.Request, v any) error {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" {
		return withStatus(http.StatusUnsupportedMediaType, "the body is JSON: Content-Type: application/json")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLong *http.MaxBytesError
	if errors.As(err, &tooLong) {
		return errTooLong
	}
	// "null" and "[]" would leave v as it is.
	if err != nil || !utf8.Valid(body) || !isObject(body) || wire.Unmarshal(body, v) != nil {
		return errBody
	}
	return nil
}

func isObject(b []byte) bool {
	for _, c := range b {
		switch c {
		case ' ', '\t', '\r', '\n':
		default:
			return c == '{'
		}
	}
	return false
}

// writeJSON answers v, which is of this package or of pkg/api and cannot fail to encode.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false) // rooms read A&B
	_ = enc.Encode(v)        // the asker may be gone
	return nil
}

func noContent(w http.ResponseWriter, err error) error {
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// checkQuery refuses what url.Values would leave out without a word: half an escape, or a semicolon between parameters. So a mistyped page is no default page.
func checkQuery(r *http.Request) error {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return wire.E(wire.InvalidArgument, "the query is no list of name=value, joined with & and percent-encoded")
	}
	for name, values := range q {
		for _, v := range values {
			if !utf8.ValidString(v) || strings.IndexByte(v, 0) >= 0 {
				return wire.E(wire.InvalidArgument, strconv.QuoteToASCII(name)+" is UTF-8 text without U+0000")
			}
		}
	}
	return nil
}

// queryLimit is the page size asked for: def when absent, most when it is more.
func queryLimit(r *http.Request, def, most int) (int, error) {
	n, ok, err := queryInt(r, "limit", 1)
	switch {
	case err != nil:
		return 0, err
	case !ok:
		return def, nil
	}
	return int(min(n, int64(most))), nil
}

// queryInt reads a whole number ≥ least; ok is false when there is none. What is above int64 counts as the largest.
func queryInt(r *http.Request, name string, least int64) (n int64, ok bool, err error) {
	q := r.URL.Query()
	if !q.Has(name) {
		return 0, false, nil
	}
	n, err = strconv.ParseInt(q.Get(name), 10, 64) // on overflow n is the nearest number
	if err != nil && !errors.Is(err, strconv.ErrRange) || n < least {
		return 0, false, wire.E(wire.InvalidArgument, name+" is a whole number from "+strconv.FormatInt(least, 10)+" on")
	}
	return n, true, nil
}
