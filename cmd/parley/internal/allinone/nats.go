package allinone

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// bucketBytes is room for what is no message: public keys, revocations.
const bucketBytes = 256 << 20

// startNATS starts a server that only this process can reach.
func startNATS(cfg *Config, log *slog.Logger) (*server.Server, error) {
	s, err := server.NewServer(&server.Options{
		ServerName: "parley", DontListen: true, NoSigs: true,
		JetStream: true, StoreDir: filepath.Join(cfg.Data, "nats"), SyncInterval: cfg.Sync,
		JetStreamMaxStore:  int64(cfg.Streams.Partitions)*cfg.Streams.MaxBytes + bucketBytes,
		JetStreamMaxMemory: 64 << 20, DisableJetStreamBanner: true,
	})
	if err != nil {
		return nil, fmt.Errorf("make the embedded NATS: %w", err)
	}
	s.SetLoggerV2(natsLog{log}, false, false, false)
	s.Start()
	if !s.ReadyForConnections(time.Minute) { // it reads its store back first
		stopNATS(s)
		return nil, errors.New("the embedded NATS is not ready after a minute")
	}
	if !s.JetStreamEnabled() {
		stopNATS(s)
		return nil, errors.New("the embedded NATS could not open its store; the log says why")
	}
	return s, nil
}

func stopNATS(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

// natsLog passes on what is worth reading.
type natsLog struct{ log *slog.Logger }

func (l natsLog) Noticef(f string, v ...any) { l.log.Debug(fmt.Sprintf(f, v...)) }
func (l natsLog) Warnf(f string, v ...any)   { l.log.Warn(fmt.Sprintf(f, v...)) }
func (l natsLog) Errorf(f string, v ...any)  { l.log.Error(fmt.Sprintf(f, v...)) }
func (l natsLog) Fatalf(f string, v ...any)  { l.log.Error(fmt.Sprintf(f, v...)) }
func (l natsLog) Debugf(string, ...any)      {}
func (l natsLog) Tracef(string, ...any)      {}
