package auth

// DemoUser is one of the users that AddDemoUsers adds. Password is "" for one that nobody can log in as.
type DemoUser struct {
	Username string
	Password string
}

// EchoBot is the demo user that a program answers for.
const EchoBot = "Leonid"

// DemoBots are the names of the demo users that nobody can log in as.
func DemoBots() []string {
	var out []string
	for _, u := range demoUsers {
		if u.password == "" {
			out = append(out, u.name)
		}
	}
	return out
}

// DemoUsers lists them, for a program to show.
func DemoUsers() []DemoUser {
	var out []DemoUser
	for _, u := range demoUsers {
		out = append(out, DemoUser{u.name, u.password})
	}
	return out
}
