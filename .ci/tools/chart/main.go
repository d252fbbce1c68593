// Command chart checks the Helm chart without a cluster: Helm's own linter, every variant of values in ci/ rendered and read strictly as what it
// says it is, and every mistake in ci/wrong/ refused with the words of its first line. It also checks the compose file.
//
//	chart DIR OUT COMPOSE    writes the rendered variants into OUT
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: chart DIR OUT COMPOSE")
		os.Exit(2)
	}
	if err := errors.Join(run(os.Args[1], os.Args[2]), composed(os.Args[3])); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(dir, out string) error {
	ch, err := loader.Load(dir)
	if err != nil {
		return fmt.Errorf("load the chart: %w", err)
	}
	var errs []error
	linted := lint.RunAll(dir, map[string]any{}, "default", lint.WithKubeVersion(&common.DefaultCapabilities.KubeVersion))
	for _, m := range linted.Messages {
		if m.Severity >= support.WarningSev {
			errs = append(errs, fmt.Errorf("lint: %w", m))
		}
	}
	variants, err := filepath.Glob(filepath.Join(dir, "ci", "*.yaml"))
	if err != nil || len(variants) == 0 {
		return fmt.Errorf("no variants in %s/ci: %w", dir, err)
	}
	for _, file := range variants {
		text, n, err := render(ch, file)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", file, err))
			continue
		}
		if err := os.WriteFile(filepath.Join(out, filepath.Base(file)), []byte(text), 0o600); err != nil {
			return err
		}
		fmt.Printf("%s: %d objects\n", filepath.Base(file), n)
	}
	wrong, err := filepath.Glob(filepath.Join(dir, "ci", "wrong", "*.yaml"))
	if err != nil || len(wrong) == 0 {
		return fmt.Errorf("no mistakes in %s/ci/wrong: %w", dir, err)
	}
	for _, file := range wrong {
		if err := refused(ch, file); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", file, err))
		}
	}
	fmt.Printf("%d mistakes are refused with a clear message\n", len(wrong))
	return errors.Join(errs...)
}

func values(ch *chart.Chart, file string) (common.Values, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	own := map[string]any{}
	if err := yaml.Unmarshal(b, &own); err != nil {
		return nil, err
	}
	caps := common.DefaultCapabilities.Copy()
	return util.ToRenderValues(ch, own, common.ReleaseOptions{Name: "parley", Namespace: "default", Revision: 1, IsInstall: true}, caps)
}

// render gives the manifests and how many there are.
func render(ch *chart.Chart, file string) (string, int, error) {
	v, err := values(ch, file)
	if err != nil {
		return "", 0, err
	}
	files, err := engine.Render(ch, v)
	if err != nil {
		return "", 0, err
	}
	var all strings.Builder
	var errs []error
	n := 0
	names := map[string]bool{}
	for _, name := range slices.Sorted(mapKeys(files)) {
		if !strings.HasSuffix(name, ".yaml") {
			continue
		}
		for _, doc := range strings.Split("\n"+files[name], "\n---") {
			id, err := judge(doc)
			switch {
			case err != nil:
				errs = append(errs, fmt.Errorf("%s: %w in:\n%s", name, err, doc))
			case id == "":
				continue
			case names[id]:
				errs = append(errs, fmt.Errorf("%s: %s is there twice", name, id))
			}
			names[id] = true
			n++
			fmt.Fprintf(&all, "---\n%s\n", strings.TrimSpace(doc))
		}
	}
	return all.String(), n, errors.Join(errs...)
}

func mapKeys(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// foreign kinds have no types here; the API server's dry run knows them no better.
var foreign = []string{"ServiceMonitor", "PrometheusRule", "HTTPRoute", "Certificate"}

var strict = serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()

// judge reads one document; "" is none.
func judge(doc string) (id string, err error) {
	b, err := yaml.YAMLToJSONStrict([]byte(doc))
	if err != nil || strings.TrimSpace(string(b)) == "null" {
		return "", err
	}
	var u unstructured.Unstructured
	if err := u.UnmarshalJSON(b); err != nil {
		return "", err
	}
	id = u.GetKind() + " " + u.GetName()
	if slices.Contains(foreign, u.GetKind()) {
		return id, nil
	}
	if _, _, err := strict.Decode(b, nil, nil); err != nil {
		return id, err
	}
	return id, nil
}

// refused checks that the values of file are not taken, and that the message has each "says:" of its first lines.
func refused(ch *chart.Chart, file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	v, err := values(ch, file)
	if err == nil {
		_, err = engine.Render(ch, v)
	}
	if err == nil {
		return errors.New("was not refused")
	}
	said := false
	for line := range strings.Lines(string(b)) {
		if want, ok := strings.CutPrefix(strings.TrimSpace(line), "# says: "); ok {
			said = true
			if !strings.Contains(err.Error(), want) {
				return fmt.Errorf("does not say %q but: %w", want, err)
			}
		}
	}
	if !said {
		return fmt.Errorf("has no line that begins with # says:; the message is: %w", err)
	}
	return nil
}
