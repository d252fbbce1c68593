package allinone

import (
	"testing"

	"parley/pkg/testx"
)

func TestMain(m *testing.M) { testx.Main(m) }
