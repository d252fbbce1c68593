package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// composed reads a compose file as Docker Compose does. Every service has to have a health check, and every file of ours that it mounts has to be there,
// for Docker would make a folder of that name.
func composed(file string) error {
	o, err := cli.NewProjectOptions([]string{file}, cli.WithoutEnvironmentResolution)
	if err != nil {
		return err
	}
	p, err := o.LoadProject(context.Background())
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	var errs []error
	for _, name := range p.ServiceNames() {
		s := p.Services[name]
		if s.HealthCheck == nil || s.HealthCheck.Disable || len(s.HealthCheck.Test) == 0 {
			errs = append(errs, fmt.Errorf("%s: service %s has no health check", file, name))
		}
		for _, v := range s.Volumes {
			if v.Type != types.VolumeTypeBind {
				continue
			}
			if _, err := os.Stat(v.Source); err != nil {
				errs = append(errs, fmt.Errorf("%s: service %s mounts what is not there: %w", file, name, err))
			}
		}
	}
	fmt.Printf("%s: %d services\n", file, len(p.Services))
	return errors.Join(errs...)
}
