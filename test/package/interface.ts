/** Prints the public interface of each subpath as the type checker sees it, comments stripped. */
import { relative, resolve } from 'node:path'
import ts from '@typescript/typescript6'

const root = resolve(import.meta.dirname, '../..')
const lib = resolve(root, 'lib')

const FORMAT =
  ts.NodeBuilderFlags.NoTruncation |
  ts.NodeBuilderFlags.UseAliasDefinedOutsideCurrentScope |
  ts.NodeBuilderFlags.InTypeAlias

/**
 * Prints what each entry file exports, and each type of this project that its exports name.
 * @param files paths of the entry files
 * @returns one text for each file, in their order
 */
export function printInterfaces(files: readonly string[]): string[] {
  const config = ts.getParsedCommandLineOfConfigFile(
    resolve(root, 'tsconfig.build.json'),
    {},
    { ...ts.sys, onUnRecoverableConfigFileDiagnostic: () => {} },
  )
  const program = ts.createProgram([...files], { ...config?.options, types: ['node'] })
  const checker = program.getTypeChecker()
  return files.map((file) => {
    const source = program.getSourceFile(file)
    const module = source && checker.getSymbolAtLocation(source)
    if (!module) throw new Error(`${relative(root, file)} exports nothing`)
    return new InterfacePrinter(checker).print(checker.getExportsOfModule(module))
  })
}

class InterfacePrinter {
  readonly #checker: ts.TypeChecker
  readonly #printer = ts.createPrinter({ removeComments: true })
  /** What is printed, or about to be. */
  readonly #seen = new Set<ts.Symbol>()
  readonly #queue: ts.Symbol[] = []

  constructor(checker: ts.TypeChecker) {
    this.#checker = checker
  }

  print(exports: readonly ts.Symbol[]): string {
    const own = exports.map((symbol) => ({ name: symbol.name, symbol: this.#resolve(symbol) }))
    for (const { symbol } of own) this.#seen.add(symbol)
    const printed = own.map(({ name, symbol }) => `export ${this.#declaration(name, symbol)}`)
    const reached: string[] = []
    for (let symbol = this.#queue.shift(); symbol; symbol = this.#queue.shift()) {
      reached.push(this.#declaration(symbol.name, symbol))
    }
    return [...printed.sort(), ...reached.sort()].join('\n\n').concat('\n')
  }

  #declaration(name: string, symbol: ts.Symbol): string {
    const parts: string[] = []
    const { flags } = symbol
    if (flags & (ts.SymbolFlags.Class | ts.SymbolFlags.Interface)) {
      parts.push(this.#classOrInterface(name, symbol))
    } else if (flags & ts.SymbolFlags.TypeAlias) {
      const type = this.#checker.getDeclaredTypeOfSymbol(symbol)
      parts.push(`type ${name}${this.#parameters(symbol)} = ${this.#type(type)}`)
    }
    if (flags & ts.SymbolFlags.Function) {
      const type = this.#checker.getTypeOfSymbol(symbol)
      for (const signature of type.getCallSignatures()) {
        parts.push(`function ${name}${this.#signature(signature)}`)
      }
    } else if (flags & ts.SymbolFlags.Variable) {
      parts.push(`const ${name}: ${this.#type(this.#checker.getTypeOfSymbol(symbol))}`)
    }
    if (parts.length === 0) throw new Error(`${name} is of a kind that is not printed`)
    return parts.join('\n')
  }

  #classOrInterface(name: string, symbol: ts.Symbol): string {
    const type = this.#checker.getDeclaredTypeOfSymbol(symbol) as ts.InterfaceType
    const isClass = Boolean(symbol.flags & ts.SymbolFlags.Class)
    const lines = this.#members(type)
    if (isClass) {
      const made = this.#checker.getTypeOfSymbol(symbol)
      const isPublic = ({ declaration }: ts.Signature) => !declaration || !isHidden(declaration)
      for (const signature of made.getConstructSignatures().filter(isPublic)) {
        lines.unshift(`  new ${this.#signature(signature)}`)
      }
      lines.push(
        ...this.#members(made, 'static ').filter((line) => !/^ {2}static prototype:/.test(line)),
      )
    }
    const bases = this.#checker.getBaseTypes(type).map((base) => this.#type(base))
    const above = bases.length > 0 ? ` extends ${bases.join(', ')}` : ''
    const kind = isClass ? 'class' : 'interface'
    return `${kind} ${name}${this.#parameters(symbol)}${above} {\n${lines.join('\n')}\n}`
  }

  /** All members, inherited ones of this project's included. */
  #members(type: ts.Type, prefix = ''): string[] {
    const lines = this.#checker
      .getPropertiesOfType(type)
      .filter((member) => isOurs(member) && !member.declarations?.some(isHidden))
      .map((member) => this.#member(member, prefix))
    const signatures = type.getCallSignatures().map((call) => `  ${this.#signature(call)}`)
    const indexes = this.#checker
      .getIndexInfosOfType(type)
      .map((info) => `  [${this.#type(info.keyType)}]: ${this.#type(info.type)}`)
    return [...signatures, ...indexes, ...lines.sort()]
  }

  #member(member: ts.Symbol, prefix: string): string {
    const flags =
      member.declarations?.reduce((all, one) => all | ts.getCombinedModifierFlags(one), 0) ?? 0
    const words = [
      flags & ts.ModifierFlags.Protected ? 'protected ' : '',
      prefix,
      flags & ts.ModifierFlags.Readonly || isGetter(member) ? 'readonly ' : '',
    ].join('')
    const optional = member.flags & ts.SymbolFlags.Optional ? '?' : ''
    return `  ${words}${/^\w+$/.test(member.name) ? member.name : JSON.stringify(member.name)}${optional}: ${this.#type(this.#checker.getTypeOfSymbol(member))}`
  }

  #parameters(symbol: ts.Symbol): string {
    const declaration = symbol.declarations?.find(
      (one) =>
        ts.isClassDeclaration(one) ||
        ts.isInterfaceDeclaration(one) ||
        ts.isTypeAliasDeclaration(one),
    ) as ts.InterfaceDeclaration | undefined
    const names = declaration?.typeParameters?.map((parameter) => parameter.getText()) ?? []
    return names.length > 0 ? `<${names.join(', ')}>` : ''
  }

  #signature(signature: ts.Signature): string {
    const node = this.#checker.signatureToSignatureDeclaration(
      signature,
      ts.SyntaxKind.CallSignature,
      undefined,
      FORMAT,
    )
    return this.#node(node)
  }

  #type(type: ts.Type): string {
    return this.#node(this.#checker.typeToTypeNode(type, undefined, FORMAT))
  }

  #node(node: ts.Node | undefined): string {
    if (!node) throw new Error('a type cannot be printed')
    this.#follow(node)
    const file = ts.createSourceFile('printed.ts', '', ts.ScriptTarget.Latest)
    return this.#printer.printNode(ts.EmitHint.Unspecified, node, file).replace(/\s+/g, ' ')
  }

  /** Queues the types of this project that a printed type names. */
  #follow(node: ts.Node): void {
    const symbol = ts.isIdentifier(node) ? (node as { symbol?: ts.Symbol }).symbol : undefined
    const target = symbol && this.#resolve(symbol)
    const isNamed =
      target &&
      target.flags & (ts.SymbolFlags.Class | ts.SymbolFlags.Interface | ts.SymbolFlags.TypeAlias)
    if (isNamed && isOurs(target) && !this.#seen.has(target)) {
      this.#seen.add(target)
      this.#queue.push(target)
    }
    ts.forEachChild(node, (child) => this.#follow(child))
  }

  #resolve(symbol: ts.Symbol): ts.Symbol {
    return symbol.flags & ts.SymbolFlags.Alias ? this.#checker.getAliasedSymbol(symbol) : symbol
  }
}

function isOurs(symbol: ts.Symbol): boolean {
  return symbol.declarations?.some((one) => one.getSourceFile().fileName.startsWith(lib)) ?? false
}

function isGetter(symbol: ts.Symbol): boolean {
  return Boolean(
    symbol.flags & ts.SymbolFlags.GetAccessor && !(symbol.flags & ts.SymbolFlags.SetAccessor),
  )
}

/** Whether a declaration is left out of the emitted ones, or kept there without its type. */
function isHidden(declaration: ts.Declaration): boolean {
  const name = ts.getNameOfDeclaration(declaration)
  const isInternal = ts.getJSDocTags(declaration).some((tag) => tag.tagName.text === 'internal')
  return isInternal || (name !== undefined && ts.isPrivateIdentifier(name))
}
