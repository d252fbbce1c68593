package bus

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"parley.example/pkg/testx"
)

func TestMain(m *testing.M) { testx.Main(m) }

func counter(c prometheus.Counter) float64 {
	var m dto.Metric
	_ = c.Write(&m) // writes into memory
	return m.GetCounter().GetValue()
}
