package httpapi

import (
	"testing"

	"parley.example/pkg/testx"
)

func TestMain(m *testing.M) { testx.Main(m) }
