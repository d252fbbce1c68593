package checker

import (
	"path/filepath"
	"reflect"
	"testing"
)

func TestCheckerHistorySavedIsTheSame(t *testing.T) {
	h := goodHistory(1)
	path := filepath.Join(t.TempDir(), "history")
	if err := Save(h, path); err != nil {
		t.Fatal(err)
	}
	again, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if Count(again) != Count(h) || len(again.Events) != len(h.Events) || !reflect.DeepEqual(again.Devices, h.Devices) || len(Check(again)) > 0 {
		t.Error("it is another one")
	}
}
