// Package config fills a struct from defaults, environment and flags, in this order, and reports
// every mistake at once. A field is a setting when it has a `cfg:"name"` tag:
//
//	HTTP string `cfg:"http" default:":8080" help:"address to listen on"`
//
// is the flag --http and the variable PARLEY_HTTP. Nested structs without a tag are walked. Types: string, bool, int,
// int64, float64, time.Duration, []string (comma-separated) and Secret.
//
// A name that stands in several nested structs is one setting and fills them all, so that a program of several services
// needs nothing of its own for what they share.
package config

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"reflect"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Prefix of the environment variables.
const Prefix = "PARLEY_"

// Secret is text that never shows itself in logs or references. Prefix a value with "file:" to read it from a file.
type Secret string

const redacted = "[redacted]"

// String hides the value.
func (s Secret) String() string { return redacted }

// GoString hides the value.
func (s Secret) GoString() string { return redacted }

// MarshalText hides the value, so JSON and slog do too.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Reveal is the value.
func (s Secret) Reveal() string { return string(s) }

// Validator is a config that checks itself; Load calls it after filling and joins what it returns.
type Validator interface{ Validate() error }

// Fixer is a config with settings that its program decides itself: Fixed names them. They have their defaults, are read
// from nowhere, and are not in the reference.
type Fixer interface{ Fixed() []string }

type setting struct {
	name, def, help string
	v               reflect.Value
}

// EnvName is the variable of a setting.
func EnvName(name string) string {
	return Prefix + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// Load fills cfg, a pointer to a struct. args are the flags, without the program's name; env is os.LookupEnv or a
// test's own. It returns flag.ErrHelp when help was asked for.
func Load(cfg any, args []string, env func(string) (string, bool)) error {
	settings, err := walk(reflect.ValueOf(cfg).Elem())
	if err != nil {
		return err
	}
	var errs []error
	known := map[string][]setting{}
	fixed := fixedNames(cfg)
	for _, s := range settings {
		if s.def != "" {
			if err := set(s.v, s.def); err != nil {
				return fmt.Errorf("default of %s: %w", s.name, err)
			}
		}
		if fixed[s.name] {
			continue
		}
		known[s.name] = append(known[s.name], s)
		if val, ok := env(EnvName(s.name)); ok {
			if err := set(s.v, val); err != nil && len(known[s.name]) == 1 { // said once
				errs = append(errs, fmt.Errorf("%s: %w", EnvName(s.name), err))
			}
		}
	}
	errs = append(errs, parseFlags(known, args)...)
	for _, err := range errs {
		if errors.Is(err, flag.ErrHelp) {
			return flag.ErrHelp
		}
	}
	if v, ok := cfg.(Validator); ok {
		if err := v.Validate(); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func fixedNames(cfg any) map[string]bool {
	names := map[string]bool{}
	if f, ok := cfg.(Fixer); ok {
		for _, name := range f.Fixed() {
			names[name] = true
		}
	}
	return names
}

// parseFlags goes on after a mistake, which package flag does not.
func parseFlags(known map[string][]setting, args []string) (errs []error) {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		name := strings.TrimLeft(arg, "-")
		if name == arg || name == "" {
			errs = append(errs, fmt.Errorf("unexpected argument %q", arg))
			continue
		}
		name, val, has := strings.Cut(name, "=")
		if name == "h" || name == "help" {
			return append(errs, flag.ErrHelp)
		}
		s := known[name]
		if s == nil {
			errs = append(errs, fmt.Errorf("unknown flag --%s", name))
			// Its value, if any, is no mistake of its own.
			if !has && i+1 < len(args) && !strings.HasPrefix(args[i+1], "-") {
				i++
			}
			continue
		}
		if !has {
			switch {
			case s[0].v.Kind() == reflect.Bool:
				val = "true"
			case i+1 < len(args):
				i++
				val = args[i]
			default:
				errs = append(errs, fmt.Errorf("--%s needs a value", name))
				continue
			}
		}
		for _, s := range s {
			if err := set(s.v, val); err != nil {
				errs = append(errs, fmt.Errorf("--%s: %w", name, err))
				break
			}
		}
	}
	return errs
}

func walk(v reflect.Value) ([]setting, error) {
	var out []setting
	t := v.Type()
	for i := range t.NumField() {
		f := t.Field(i)
		name, ok := f.Tag.Lookup("cfg")
		if !ok {
			if f.Type.Kind() == reflect.Struct && f.IsExported() {
				sub, err := walk(v.Field(i))
				if err != nil {
					return nil, err
				}
				out = append(out, sub...)
			}
			continue
		}
		for _, s := range out {
			if s.name == name {
				return nil, fmt.Errorf("setting %s is defined twice", name)
			}
		}
		out = append(out, setting{name, f.Tag.Get("default"), f.Tag.Get("help"), v.Field(i)})
	}
	return out, nil
}

func set(v reflect.Value, s string) error {
	switch v.Interface().(type) {
	case time.Duration:
		d, err := time.ParseDuration(s)
		if err != nil {
			return fmt.Errorf("%q is not a duration such as 1500ms or 30s", s)
		}
		v.SetInt(int64(d))
		return nil
	case Secret:
		if path, ok := strings.CutPrefix(s, "file:"); ok {
			b, err := os.ReadFile(path)
			if err != nil {
				return fmt.Errorf("read a secret: %w", err)
			}
			s = strings.TrimSpace(string(b))
		}
		v.SetString(s)
		return nil
	case []string:
		var list []string
		for _, p := range strings.Split(s, ",") {
			if p = strings.TrimSpace(p); p != "" {
				list = append(list, p)
			}
		}
		v.Set(reflect.ValueOf(list))
		return nil
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Bool:
		b, err := strconv.ParseBool(s)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", s)
		}
		v.SetBool(b)
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", s)
		}
		v.SetInt(n)
	case reflect.Float64:
		n, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return fmt.Errorf("%q is not a number", s)
		}
		v.SetFloat(n)
	default:
		return fmt.Errorf("settings of type %s are not supported", v.Type())
	}
	return nil
}

// Reference prints every setting of cfg (a pointer to a struct; its values do not matter).
func Reference(w io.Writer, cfg any) error {
	settings, err := walk(reflect.ValueOf(cfg).Elem())
	if err != nil {
		return err
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	printed := fixedNames(cfg)
	for _, s := range settings {
		if printed[s.name] {
			continue
		}
		printed[s.name] = true
		def := s.def
		if def == "" {
			def = "-"
		}
		fmt.Fprintf(tw, "  --%s\t%s\t%s\t%s\n", s.name, EnvName(s.name), def, s.help)
	}
	return tw.Flush()
}
