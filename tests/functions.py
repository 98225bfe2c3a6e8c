# functions.py - writes tests/functions.h: functions of one number and three derivatives of each, by
# mpmath with 60 digits, rounded to double. Every argument is a float, so that both builds read the
# same one. Run:  python3 tests/functions.py > tests/functions.h
import struct
from mpmath import mp, mpf, cosh, erf, erfc, exp, log, log1p, pi, sqrt, tanh

mp.dps = 60


def sigmoid(a):
    return 1 / (1 + exp(-a))


def sigmoids(u):  # sigmoid and its derivatives up to the fourth, without differences of near equals
    s, rest = sigmoid(u), sigmoid(-u)
    p, slant = s * rest, rest - s
    return s, p, p * slant, p * (1 - 6 * p), p * slant * (1 - 12 * p)


def gate(a, s, u):  # a s(u(a)): s and its derivatives at u(a), u's derivatives at a
    s0, s1, s2, s3, _ = s
    first = s1 * u[0]
    second = s2 * u[0] ** 2 + s1 * u[1]
    third = s3 * u[0] ** 3 + 3 * s2 * u[0] * u[1] + s1 * u[2]
    return a * s0, s0 + a * first, 2 * first + a * second, 3 * second + a * third


def silu(a):
    return gate(a, sigmoids(a), (1, 0, 0))


def gelu(a):
    k, c = 2 * sqrt(2 / pi), mpf("0.044715")
    slopes = (k * (1 + 3 * c * a * a), 6 * k * c * a, 6 * k * c)
    return gate(a, sigmoids(k * (a + c * a**3)), slopes)


def gelu_erf(a):
    below, density = erfc(-a / sqrt(mpf(2))) / 2, exp(-a * a / 2) / sqrt(2 * pi)
    return (a * below, below + a * density, (2 - a * a) * density, (a**3 - 4 * a) * density)


def gauss(a):
    y = exp(-a * a)
    return y, -2 * a * y, (4 * a * a - 2) * y, (12 * a - 8 * a**3) * y


def of_erf(a):
    y = gauss(a)
    return (erf(a), *(2 / sqrt(pi) * d for d in y[:3]))


def of_tanh(a):
    t, p = tanh(a), cosh(a) ** -2
    return t, p, -2 * t * p, p * (6 * t * t - 2)


def softplus(a):
    s = sigmoids(a)
    return (log1p(exp(-abs(a))) + max(a, 0), *s[:3])


def power(p):
    return lambda a: (a**p, p * a ** (p - 1), p * (p - 1) * a ** (p - 2),
                      p * (p - 1) * (p - 2) * a ** (p - 3))


WIDE = [1e-30, 1e-7, 1e-3, 0.1, 0.5, 0.7, 1, 1.3, 2, 2.5, 3, 4, 5, 6, 7, 8, 9]
FAR = [10, 13, 17, 20, 30, 60, 85, 100, 300, 700]
POSITIVE = [1e-30, 1e-9, 1e-3, 0.3, 0.999, 1.001, 2, 7, 1e4, 1e15, 1e30]


def both(numbers):
    return [s * a for a in numbers for s in (1, -1)]


FUNCTIONS = {
    "exp": (lambda a: (exp(a),) * 4, both([a for a in WIDE + FAR if a < 88])),
    "log": (lambda a: (log(a), 1 / a, -1 / a**2, 2 / a**3), POSITIVE),
    "sqrt": (power(mpf("0.5")), POSITIVE),
    "rsqrt": (power(mpf("-0.5")), POSITIVE),
    "reciprocal": (power(-1), both(POSITIVE)),
    "tanh": (of_tanh, both(WIDE + [13, 17, 20, 30, 43])),
    "sigmoid": (lambda a: sigmoids(a)[:4], both(WIDE + FAR)),
    "softplus": (softplus, both(WIDE + FAR)),
    "gauss": (gauss, both(WIDE + [13, 26])),
    "erf": (of_erf, both(WIDE + [13, 26])),
    "silu": (silu, both(WIDE + FAR)),
    "gelu": (gelu, both(WIDE + [10, 13, 20])),
    "gelu_erf": (gelu_erf, both(WIDE + [10, 13, 14, 20, 37])),
}

print("// functions.h - written by functions.py: a function, its argument, its value there and three")
print("// derivatives, by mpmath with 60 digits.")
for name, (function, arguments) in FUNCTIONS.items():
    for a in arguments:
        a = struct.unpack("f", struct.pack("f", a))[0]
        values = [float(v) for v in function(mpf(a))]
        texts = ["%.17g" % v for v in values]
        print("F(%s, %.9g, %s, %s,\n  %s, %s)" % (name, a, *texts))
